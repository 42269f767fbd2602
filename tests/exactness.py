"""How far incremental inference is from full forwards: used by the tests and by `make check-exact`."""
import time

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from entropy_captum.boxes import bounding_box
from entropy_captum.capture import captured
from entropy_captum.cost import predicted_seconds, profile
from entropy_captum.incremental import IncrementalInference, changed_inputs, feature_boxes
from entropy_captum.inference import FullInference
from entropy_captum.passes import Network, make_plan
from entropy_captum.perturbation import Perturbation
from entropy_captum.region import resize_outputs
from entropy_captum.sampling import A, design_rows, pick_freeze

ARCHITECTURES = ("Unet", "UnetPlusPlus", "FPN", "Linknet", "PAN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "MAnet", "Segformer",
                 "UPerNet", "DPT")
ENCODERS = ("resnet18", "resnet34", "mobilenet_v2", "tu-tf_efficientnet_lite0", "efficientnet-b0", "tu-convnext_atto", "mit_b0")


def build(architecture: str, encoder: str, size: int) -> nn.Module:
    """A network with random weights and batch-norm statistics that are not trivial."""
    torch.manual_seed(3)
    # A vision transformer is built for one image size unless told otherwise; smp's DPT takes no other encoders.
    options = {"dynamic_img_size": True} if "vit" in encoder else {}
    model = getattr(smp, architecture)(encoder, encoder_weights=None, classes=2, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model.eval()


def place(where: str, size: tuple[int, int]) -> np.ndarray:
    """A region of 16 x 20 pixels at the centre, a corner, or the lower border."""
    top, left = {"centre": (size[0] // 2 - 8, size[1] // 2 - 10), "corner": (0, 0),
                 "border": (size[0] - 16, size[1] // 3)}[where]
    mask = np.zeros(size, bool)
    mask[top:top + 16, left:left + 20] = True
    return mask


@torch.no_grad()
def compare(model: nn.Module, x: torch.Tensor, region: np.ndarray, grid: int = 4, every: int = 1) -> dict[str, float]:
    """The largest difference in the region over a design's rows, in shares of the largest output; and what it saves."""
    start = time.perf_counter()
    graph = captured(model, x)
    seconds_to_capture = time.perf_counter() - start
    network = Network(graph, model, region.shape)
    perturbation = Perturbation((x,), 0.0, None, grid)
    rows = design_rows(grid * grid)
    plan = make_plan(network, bounding_box(region), changed_inputs(feature_boxes(perturbation), rows))
    full, designs = FullInference(model), list(pick_freeze(2, grid * grid))
    engine, design = IncrementalInference([plan], full, 2), designs[1]
    found = {block.row[0]: block.outputs[1] for block in
             engine.evaluate(perturbation, designs, rows, torch.arange(1))}
    worst, largest = 0.0, 0.0
    for row in rows[::every]:
        outputs = resize_outputs(full.clean(perturbation(design.keep(row)[None])), region.shape)
        largest = max(largest, float(outputs.abs().max()))
        want = outputs[(..., *plan.base.output.within(plan.base.output._replace(top=0, left=0)))]
        worst = max(worst, float((found.get(row, found[A]) - want).abs().max()))
    incremental, whole = predicted_seconds(plan, rows, profile(network, x), 16)
    return {"difference": worst / largest, "saving": whole / incremental, "layers": len(network.layers),
            "whole": len(network.whole), "capture_seconds": seconds_to_capture}
