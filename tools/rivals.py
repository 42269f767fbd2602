"""Maps that other libraries make, each by its own code, for the study: functions of one's own for `entropy-captum evaluate`.

    pip install grad-cam xplique tensorflow-cpu scikit-image
    pip install --no-deps meteors spyndex python-box loguru
    entropy-captum evaluate --data $ENTROPY_CAPTUM_DATA --skip whu/train,inria/train --limit 6 --crop 256 --n-samples 8 \
        --keep-maps --methods entropy,$(python tools/rivals.py) --out runs/rivals
    python tools/collect_rows.py rivals_256 runs/rivals

None of these libraries is needed by the package or its tests (Meteors 0.2.0 asks for a numpy below 2, and runs with a later one).
Each method is what its library makes of it unless something else is said, of the mean probability in the region, or of the sum of
its logits for the class activation maps. Those that draw have the forwards that the entropy map has at N = 8 on 8 x 8 patches.
Without arguments of its own, this prints the methods as `--methods` takes them.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from entropy_captum.cam import default_layer
from entropy_captum.region import RegionScore

FORWARDS, GRID, ROWS = 520, 8, 8


def superpixels(inputs: Tensor) -> Tensor:
    """About as many superpixels as the grid has patches, int64 (1,1,H,W), from 0."""
    from skimage.segmentation import slic
    image = inputs[0].permute(1, 2, 0).double().numpy()
    image = (image - image.min()) / max(np.ptp(image), 1e-9)
    return torch.from_numpy(slic(image, GRID**2, start_label=0))[None, None]


def captum_lime(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str, baselines: Tensor) -> Tensor:
    """LIME over superpixels. Captum's Lasso with its alpha of 0.01 makes most scores of a region 0; this fits by least squares."""
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr import Lime
    lime = Lime(RegionScore(model, region, target, activation), interpretable_model=SkLearnLinearRegression())
    return lime.attribute(inputs, baselines, feature_mask=superpixels(inputs), n_samples=FORWARDS, perturbations_per_eval=ROWS)


def captum_integrated_gradients(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str,
                                baselines: Tensor) -> Tensor:
    """Integrated gradients in 50 steps."""
    from captum.attr import IntegratedGradients
    method = IntegratedGradients(RegionScore(model, region, target, activation))
    return method.attribute(inputs, baselines.expand_as(inputs), internal_batch_size=ROWS)


def meteors_lime(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str) -> Tensor:
    """LIME over superpixels, as Meteors makes them, with its Lasso of the same least squares."""
    from meteors import HSI
    from meteors.attr import Lime
    from meteors.models import ExplainableModel, SkLearnLasso
    score = RegionScore(model, region, target, activation)
    scene = HSI(image=inputs[0], wavelengths=[450, 550, 650], orientation=("C", "H", "W"))
    lime = Lime(ExplainableModel(score, "regression"), SkLearnLasso(alpha=1e-6))
    mask = lime.get_segmentation_mask(scene, "slic", num_interpret_features=GRID**2)
    found = lime.attribute(scene, attribution_type="spatial", segmentation_mask=mask, n_samples=FORWARDS,
                           perturbations_per_eval=ROWS)
    return found.spatial_attributes if hasattr(found, "spatial_attributes") else found.attributes[None]


def class_activation(name: str, model: nn.Module, inputs: Tensor, region: Tensor, target: int) -> NDArray[Any]:
    """A class activation map of pytorch-grad-cam at the layer that Seg-Grad-CAM takes."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
    goal = SemanticSegmentationTarget(target, region[0].float().numpy())
    with getattr(pytorch_grad_cam, name)(model, [default_layer(model, inputs)]) as cam:
        return cam(inputs, [goal])


def cam_grad(model: nn.Module, inputs: Tensor, region: Tensor, target: int) -> NDArray[Any]:
    return class_activation("GradCAM", model, inputs, region, target)


def cam_grad_plus_plus(model: nn.Module, inputs: Tensor, region: Tensor, target: int) -> NDArray[Any]:
    return class_activation("GradCAMPlusPlus", model, inputs, region, target)


def cam_layer(model: nn.Module, inputs: Tensor, region: Tensor, target: int) -> NDArray[Any]:
    return class_activation("LayerCAM", model, inputs, region, target)


def cam_score(model: nn.Module, inputs: Tensor, region: Tensor, target: int) -> NDArray[Any]:
    return class_activation("ScoreCAM", model, inputs, region, target)


class Column(nn.Module):
    """Scores as (B,1), for Xplique."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)[:, None]


def black_box(name: str, score: nn.Module, inputs: Tensor, **options: Any) -> NDArray[Any]:
    """The map (1,H,W) of a method of Xplique of a score of inputs (1,C,H,W), set as it comes but for the grid and `options`."""
    from xplique import attributions
    from xplique.wrappers import TorchWrapper
    wrapped = TorchWrapper(Column(score).eval(), "cpu", is_channel_first=True, requires_grad=False)
    method = getattr(attributions, name)(wrapped, **{"grid_size": GRID, "batch_size": ROWS} | options)
    found = np.asarray(method.explain(inputs.permute(0, 2, 3, 1).numpy(), np.ones((1, 1), np.float32)))
    return found.reshape(1, *inputs.shape[-2:])


def xplique_sobol(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str) -> NDArray[Any]:
    """Total-order Sobol indices of 8 designs of 64 + 2 rows."""
    return black_box("SobolAttributionMethod", RegionScore(model, region, target, activation), inputs, nb_design=8)


def xplique_hsic(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str) -> NDArray[Any]:
    return black_box("HsicAttributionMethod", RegionScore(model, region, target, activation), inputs, nb_design=FORWARDS)


def xplique_rise(model: nn.Module, inputs: Tensor, region: Tensor, target: int, activation: str) -> NDArray[Any]:
    return black_box("Rise", RegionScore(model, region, target, activation), inputs, nb_samples=FORWARDS)


RIVALS: tuple[Callable[..., Any], ...] = (captum_lime, captum_integrated_gradients, meteors_lime, cam_grad, cam_grad_plus_plus,
                                          cam_layer, cam_score, xplique_sobol, xplique_hsic, xplique_rise)

if __name__ == "__main__":
    print(",".join(f"tools/rivals.py:{method.__name__}" for method in RIVALS))
