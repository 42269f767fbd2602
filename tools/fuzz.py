"""What `make fuzz` runs: random small networks, incremental inference against full; prints a line, and the seed of each failure."""
from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entropy_captum import EntropyCentric, Estimate

#: The largest difference of two scores in shares of the largest, by dtype.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
#: How many times the rounding of full inference (float32 against float64) a difference may be, where scores are small numbers.
ROUNDING = 4


class Apply(nn.Module):
    """A function of one map as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1),
                                  nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Skip(nn.Module):
    """A body beside its input, added or concatenated; maps of another size are resized to the input's."""

    def __init__(self, body: nn.Module, add: bool, inplace: bool) -> None:
        super().__init__()
        self.body, self.add, self.inplace = body, add, inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.shape[2:] != x.shape[2:]:
            y = F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)
        if not self.add or y.shape != x.shape:
            return torch.cat([x, y], 1)
        return y.add_(x) if self.inplace else x + y


def convolution(rng: np.random.Generator, channels: int) -> nn.Module:
    """Of any kernel, stride, dilation, groups and border."""
    kernel, dilation = int(rng.choice([1, 2, 3, 5])), int(rng.choice([1, 1, 2]))
    padding, border = dilation * (kernel // 2), str(rng.choice(["zeros", "reflect", "replicate", "circular"]))
    groups = int(rng.choice([g for g in (1, 2, 4, channels) if channels % g == 0]))
    return nn.Conv2d(channels, groups * int(rng.integers(1, 1 + 12 // groups)) if groups < 12 else channels, kernel,
                     int(rng.choice([1, 1, 2])), padding, dilation, groups, bool(rng.random() < 0.5), border)


def transposed(rng: np.random.Generator, channels: int) -> nn.Module:
    """A transposed convolution of stride 1 or 2."""
    stride = int(rng.choice([1, 2]))
    kernel, extra = int(rng.integers(stride, 5)), int(rng.integers(0, stride))
    return nn.ConvTranspose2d(channels, int(rng.integers(2, 9)), kernel, stride, int(rng.integers(0, (kernel + 1) // 2)), extra)


def normalisation(rng: np.random.Generator, channels: int) -> nn.Module:
    """Batch norm with statistics of its own, group norm or instance norm."""
    kind = rng.integers(4)
    if kind == 0:
        groups = int(rng.choice([g for g in (1, 2, 4) if channels % g == 0]))
        return nn.GroupNorm(groups, channels)
    if kind == 1:
        return nn.InstanceNorm2d(channels, affine=True)
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.5, 2)
    return norm


def activation(rng: np.random.Generator) -> nn.Module:
    """Half of them in place."""
    inplace = bool(rng.random() < 0.5)
    kinds = (lambda: nn.ReLU(inplace), lambda: nn.SiLU(inplace), lambda: nn.LeakyReLU(0.1, inplace), lambda: nn.Hardswish(inplace),
             nn.GELU, nn.Sigmoid, lambda: nn.ELU(inplace=inplace), lambda: Apply(lambda x: x.clamp_(-1, 1)),
             lambda: Apply(lambda x: x.sub_(0.1).mul_(1.5)), lambda: nn.Dropout2d(0.5), lambda: nn.Softmax(1))
    return kinds[rng.integers(len(kinds))]()


def resizing(rng: np.random.Generator, channels: int) -> nn.Module:
    """Pooling, upsampling, pixel shuffles, borders, crops and flips."""
    down, up = int(rng.choice([2, 3])), float(rng.choice([1.5, 2.0]))
    border, width = str(rng.choice(["constant", "reflect", "replicate", "circular"])), [int(n) for n in rng.integers(0, 4, 4)]
    kinds = [lambda: nn.MaxPool2d(down, 2, down // 2), lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=bool(rng.random() < 0.5)),
             lambda: nn.MaxPool2d(2, 2, ceil_mode=True), lambda: nn.AdaptiveAvgPool2d(int(rng.integers(3, 9))),
             lambda: nn.Upsample(scale_factor=up, mode="nearest"), lambda: nn.Upsample(scale_factor=up, mode="bicubic"),
             lambda: nn.Upsample(scale_factor=up, mode="bilinear", align_corners=False),
             lambda: nn.Upsample(scale_factor=up, mode="bilinear", align_corners=True),
             lambda: Apply(lambda x: F.pad(x, width, border)), lambda: Apply(lambda x: x[..., 1:, :-2]),
             lambda: Apply(lambda x: x.flip(-1)), lambda: Apply(lambda x: x.roll(2, -2)), lambda: nn.PixelUnshuffle(2)]
    if channels % 4 == 0:
        kinds += 2 * [lambda: nn.PixelShuffle(2)]
    return kinds[rng.integers(len(kinds))]()


def layer(rng: np.random.Generator, channels: int, depth: int) -> nn.Module:
    """One layer of any kind for so many channels, or a skip around a few."""
    kind = rng.random()
    if kind < 0.3:
        return convolution(rng, channels)
    if kind < 0.38:
        return transposed(rng, channels)
    if kind < 0.5:
        return normalisation(rng, channels)
    if kind < 0.67:
        return activation(rng)
    if kind < 0.72:
        return Gate(channels)
    if kind < 0.85 or depth == 0:
        return resizing(rng, channels)
    body = chain(rng, torch.zeros(1, channels, 16, 19), int(rng.integers(1, 4)), depth - 1)
    return Skip(body, bool(rng.random() < 0.5), bool(rng.random() < 0.5))


def chain(rng: np.random.Generator, x: Tensor, length: int, depth: int) -> nn.Sequential:
    """So many layers for maps like `x` (1,C,H,W); what the maps do not allow, or makes them too large or small, is drawn again."""
    layers: list[nn.Module] = []
    while len(layers) < length:
        new = layer(rng, x.shape[1], depth).eval()
        try:
            out = new(x.clone())
        except RuntimeError:  # a border wider than the map, an odd side for an unshuffle, ...
            continue
        if min(out.shape[2:]) >= 3 and max(out.shape[2:]) <= 80 and 2 <= out.shape[1] <= 24:
            layers, x = [*layers, new], out
    return nn.Sequential(*layers)


@torch.no_grad()
def draw(seed: int) -> tuple[nn.Module, Tensor, Tensor, int | None]:
    """A network in a random mix of training and eval modes, its input (B,3,H,W), a region (B,H,W) and a target, in float64."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    height, width = (int(n) for n in rng.integers(17, 42, 2))
    x, classes = torch.randn(int(rng.integers(1, 3)), 3, height, width), int(rng.integers(1, 4))
    body = chain(rng, x[:1], int(rng.integers(3, 10)), 2)
    net = nn.Sequential(body, nn.Conv2d(body(x[:1].clone()).shape[1], classes, 1)).double()
    for module in net.modules():
        module.training = bool(rng.random() < 0.5)
    region, top, left = torch.zeros(len(x), height, width), rng.integers(0, height - 5), rng.integers(0, width - 5)
    region[:, top:top + rng.integers(1, 9), left:left + rng.integers(1, 9)] = 1
    return net, x.double(), region, None if classes == 1 else int(rng.integers(classes))


def explain(net: nn.Module, x: Tensor, region: Tensor, target: int | None, kind: str) -> tuple[Estimate, str]:
    """The estimate of a kind of inference, and why it was run in full after all, if it was."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = EntropyCentric(net, inference=kind).estimate(x, region=region, target=target, n_samples=4, grid_size=(3, 4),
                                                             perturbations_per_eval=3)
    said = [str(w.message) for w in caught]
    return found, next((line for line in said if "not possible" in line), "")


def distance(found: Estimate, want: Estimate) -> float:
    """The largest difference of scores in shares of the largest."""
    return float((found.scores - want.scores).abs().max() / want.scores.abs().max().clamp(min=1e-30))


def fault(seed: int) -> tuple[str, str]:
    """What is wrong with the network of a seed, and why it was run in full; empty where nothing is, or it was not."""
    net, double, region, target = draw(seed)
    modes, why, exact = [m.training for m in net.modules()], "", None
    for dtype, tolerance in TOLERANCES.items():
        net, x = net.to(dtype), double.to(dtype)
        before = x.clone(), [value.clone() for value in net.state_dict().values()]
        (full, _), (found, why) = (explain(net, x, region, target, kind) for kind in ("full", "incremental"))
        exact = exact or full
        if not distance(found, full) <= max(tolerance, ROUNDING * distance(full, exact)):
            return f"{dtype}: scores differ by {distance(found, full):.1e} of the largest", why
        if not torch.equal(x, before[0]) or not all(map(torch.equal, net.state_dict().values(), before[1])):
            return f"{dtype}: the input or the network was changed", why
        if [m.training for m in net.modules()] != modes:
            return f"{dtype}: training flags were not restored", why
    return "", why


def main() -> None:
    """Fuzz, and end with exit code 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, failed, reasons = time.perf_counter(), 0, Counter[str]()
    for seed in range(options.start, options.start + options.networks):
        try:
            wrong, why = fault(seed)
        except Exception as problem:  # whatever is raised is a finding, and the other seeds are still to be run
            wrong, why = f"{type(problem).__name__}: {problem}", ""
        if wrong:
            failed += 1
            print(f"seed {seed}: {wrong}", flush=True)
        if why:
            reasons[why] += 1
    full = sum(reasons.values())
    print(f"{options.networks} networks from seed {options.start}: {failed} wrong, {options.networks - full} run incrementally, "
          f"{full} in full; {time.perf_counter() - start:.0f} s")
    for why, count in reasons.most_common():
        print(f"  {count} x {why}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
