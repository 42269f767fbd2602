"""Entropy-centric explanations of aerial image segmentation, native to Captum."""
__version__ = "0.1.0"

from entropy_captum.attribution import EntropyCentric, SobolTotal
from entropy_captum.cam import LayerScoreCam
from entropy_captum.estimate import Estimate
from entropy_captum.evaluation import SitResult, h_sit, l_sit
from entropy_captum.region import RegionScore
from entropy_captum.zoo import rooftop_unet

__all__ = ["EntropyCentric", "Estimate", "LayerScoreCam", "RegionScore", "SitResult", "SobolTotal", "h_sit", "l_sit",
           "rooftop_unet"]
