"""Entropy-centric explanations of aerial image segmentation, native to Captum."""
__version__ = "0.1.0"

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from entropy_captum.attribution import EntropyCentric, SobolTotal
    from entropy_captum.cam import LayerScoreCam
    from entropy_captum.estimate import Estimate
    from entropy_captum.evaluation import SitResult, h_sit, l_sit
    from entropy_captum.models import load_model
    from entropy_captum.region import RegionScore
    from entropy_captum.zoo import rooftop_unet

__all__ = ["EntropyCentric", "Estimate", "LayerScoreCam", "RegionScore", "SitResult", "SobolTotal", "h_sit", "l_sit",
           "load_model", "rooftop_unet"]
# Where each public name lives. It is imported when it is first asked for: torch takes seconds, which a command's help has not.
_HOMES = {"EntropyCentric": "attribution", "Estimate": "estimate", "LayerScoreCam": "cam", "RegionScore": "region",
          "SitResult": "evaluation", "SobolTotal": "attribution", "h_sit": "evaluation", "l_sit": "evaluation",
          "load_model": "models", "rooftop_unet": "zoo"}


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'entropy_captum' has no attribute {name!r}; it offers {', '.join(__all__)}")
    globals()[name] = value = getattr(_importlib.import_module(f"entropy_captum.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
