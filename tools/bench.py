"""What `make bench` runs: both sides of each comparison in one process, in alternation; medians and ratios."""
from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from entropy_captum import EntropyCentric, rooftop_unet
from entropy_captum.data import normalize, procedural_scene


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bare_forwards(model: nn.Module, x: torch.Tensor, rows: int, batch: int) -> None:
    """The same number of rows in the same batches, with nothing around them."""
    with torch.no_grad():
        for start in range(0, rows, batch):
            model(x.expand(min(batch, rows - start), -1, -1, -1))


def overhead(repeats: int) -> None:
    """The time of `attribute` in full mode over that of as many bare forwards at the same batch size."""
    print("full inference, 256 x 256, grid 4, N = 4, one thread: time over bare forwards (wanted: at most 1.05)")
    torch.set_num_threads(1)
    model, scene = rooftop_unet(), procedural_scene(2)
    x, region, method = normalize(scene.image), torch.from_numpy(scene.label), EntropyCentric(model)
    for batch in (1, 8):
        ours, bare = [], []
        for _ in range(repeats + 1):
            ours.append(seconds(lambda: method.attribute(x, region=region, n_samples=4, grid_size=4,
                                                         perturbations_per_eval=batch)))  # noqa: B023
            bare.append(seconds(lambda: bare_forwards(model, x, 4 * 17, batch)))  # noqa: B023
        # The first pair warms up. Neighbours in time are compared, since a shared machine drifts.
        ratios = sorted(a / b for a, b in zip(ours[1:], bare[1:], strict=True))
        print(f"  perturbations_per_eval={batch}: median {statistics.median(ratios):.3f}, "
              f"from {ratios[0]:.3f} to {ratios[-1]:.3f}", flush=True)


def peak_of(n_samples: int, grid_size: int) -> float:
    """Peak memory of this process in MB beyond what single forwards of that batch need."""
    torch.set_num_threads(1)
    model, scene = rooftop_unet(), procedural_scene(2)
    x, region = normalize(scene.image), torch.from_numpy(scene.label)
    bare_forwards(model, x, 8, 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    EntropyCentric(model).attribute(x, region=region, n_samples=n_samples, grid_size=grid_size, perturbations_per_eval=4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory() -> None:
    """Each size in a process of its own: a peak cannot be taken back."""
    print("peak memory beyond bare forwards of the same batch (wanted: no growth with N or grid)")
    for n_samples, grid_size in ((2, 4), (16, 4), (2, 12)):
        command = [sys.executable, __file__, "--peak", str(n_samples), str(grid_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  N = {n_samples:2d}, grid {grid_size:2d}: {float(done.stdout):.1f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", type=int, nargs=2, metavar=("N", "GRID"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_of(*arguments.peak))
    else:
        overhead(arguments.repeats)
        memory()
