"""Where the time of a run goes, to nbs/benchmarks/profile.csv: convolutions, other layers, copies, redrawing, measuring, Python.

One building, ten buildings together and all pixels of a drawn scene, by three networks, each by what "auto" takes.
Shares of one process's own time, so that they can be compared between machines better than seconds can.
"""
from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from bench import NETWORKS
from benchmark_tables import replace_rows
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from entropy_captum import EntropyCentric, Estimate
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.inference import Block
from entropy_captum.perturbation import Perturbation
from entropy_captum.run import Tally

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{name: NETWORKS[name][0] for name in ("bundled (lite0)", "U-Net resnet34")},
    "Segformer mit_b0": lambda: smp.Segformer("mit_b0", encoder_weights=None).eval()}
#: Parts of the names of operations that sum products, and of those that only move numbers; the others are other layers.
PRODUCTS = ("conv", "mm", "attention", "dot")
COPIES = ("copy", "cat", "clone", "contiguous", "index", "pad", "empty", "fill_", "zero_", "stack", "resize_")
KINDS = ("convolutions", "other layers", "copies", "redrawing", "measuring", "Python")


def kind_of(event: Any) -> str:
    """The kind of an operation, by the part of a run that it is in, then by its name."""
    part = event
    while part is not None:
        if part.name in ("redrawing", "measuring"):
            return str(part.name)
        part = part.cpu_parent
    if any(word in event.name for word in PRODUCTS):
        return "convolutions"
    return "copies" if any(word in event.name for word in COPIES) else "other layers"


@contextmanager
def named_parts() -> Iterator[None]:
    """What redraws images and what measures them says so to the profiler."""
    add, redraw = Tally.add, Perturbation.__call__

    def measured(tally: Tally, block: Block) -> Iterator[None]:
        with record_function("measuring"):
            done = list(add(tally, block))
        yield from done

    def redrawn(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
        with record_function("redrawing"):
            return redraw(*arguments, **options)

    with patch.object(Tally, "add", measured), patch.object(Perturbation, "__call__", redrawn):
        yield


def shares(run: Callable[[], Estimate]) -> dict[str, str | float]:
    """What ran the rows of a run, and the share of each kind in its time, after it ran once before."""
    run()
    with named_parts(), profile(activities=[ProfilerActivity.CPU]) as found, record_function("all"):
        estimate = run()
    (whole,) = (event for event in found.events() if event.name == "all")
    spent = dict.fromkeys(KINDS, 0.0)
    for event in found.events():
        if event is not whole:
            spent[kind_of(event)] += event.self_cpu_time_total / whole.cpu_time_total
    return {"ran by": estimate.settings["ran_by"], **spent, "Python": 1 - sum(spent.values())}


def regions_of(instances: np.ndarray) -> dict[str, Tensor]:
    """The largest building (1,H,W), the ten largest (10,H,W), and all pixels (1,H,W)."""
    ids = torch.from_numpy(np.argsort(-np.bincount(instances[instances > 0]))[:10])
    ten = torch.from_numpy(instances.astype(np.int64))[None] == ids[:, None, None]
    return {"one building": ten[:1], "ten buildings": ten, "whole tile": torch.ones_like(ten[:1])}


def measure(network: str, size: int, n_samples: int) -> pd.DataFrame:
    """Shares for each task of a network."""
    torch.manual_seed(0)
    model, scene = BUILDERS[network](), procedural_scene(3, size)
    x, rows = normalize(scene.image), []
    for task, regions in regions_of(scene.instances).items():
        run = partial(EntropyCentric(model).estimate_regions, x, regions, n_samples=n_samples, perturbations_per_eval=8)
        rows.append({"network": network, "task": task, **shares(run)})
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(BUILDERS), metavar="network", help=f"of {', '.join(BUILDERS)}")
    parser.add_argument("--size", type=int, default=256, help="of the scene, pixels")
    parser.add_argument("--n-samples", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for network in given.networks:
        replace_rows("profile", measure(network, given.size, given.n_samples))


if __name__ == "__main__":
    main()
