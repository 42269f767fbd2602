"""Where the time of a run goes, to nbs/benchmarks/profile.csv: convolutions, other layers, copies, redrawing, measuring, Python.

One building, ten buildings together and all predicted pixels of a drawn scene, by three networks, each by what "auto" takes.
Shares of one process's own time, so that they can be compared between machines better than seconds can.
"""
from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pandas as pd
import segmentation_models_pytorch as smp
import torch
from benchmark_tables import replace_rows
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from entropy_captum import EntropyCentric, rooftop_unet
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.inference import Block
from entropy_captum.perturbation import Perturbation
from entropy_captum.run import Tally

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bundled (lite0)": rooftop_unet,
    "U-Net resnet34": lambda: smp.Unet("resnet34", encoder_weights=None).eval(),
    "Segformer mit_b0": lambda: smp.Segformer("mit_b0", encoder_weights=None).eval()}
#: Operations by what they do; what is in none of these is another layer.
PRODUCTS = ("conv", "mm", "linear", "attention", "matmul", "dot")
COPIES = ("copy_", "cat", "clone", "contiguous", "index", "pad", "empty", "fill_", "zero_", "stack", "to_copy", "resize_")
KINDS = ("convolutions", "other layers", "copies", "redrawing", "measuring", "Python")


def kind_of(event: Any) -> str:
    """The kind of an operation, by the part of a run that it is in, then by its name."""
    part = event
    while part is not None:
        if part.name in ("redrawing", "measuring"):
            return str(part.name)
        part = part.cpu_parent
    name = event.name.removeprefix("aten::")
    if any(word in name for word in PRODUCTS):
        return "convolutions"
    return "copies" if any(word in name for word in COPIES) else "other layers"


def named_parts() -> ExitStack:
    """Until it is closed, what redraws images and what measures them says so to the profiler."""
    add, redraw, stack = Tally.add, Perturbation.__call__, ExitStack()

    def measured(tally: Tally, block: Block) -> Iterator[None]:
        with record_function("measuring"):
            done = list(add(tally, block))
        yield from done

    def redrawn(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
        with record_function("redrawing"):
            return redraw(*arguments, **options)

    stack.enter_context(patch.object(Tally, "add", measured))
    stack.enter_context(patch.object(Perturbation, "__call__", redrawn))
    return stack


def shares(action: Callable[[], object]) -> dict[str, float]:
    """The share of each kind in the time of an action that ran once before."""
    action()
    with named_parts(), profile(activities=[ProfilerActivity.CPU]) as found, record_function("all"):
        action()
    events = found.events()
    whole = next(event for event in events if event.name == "all").cpu_time_total
    spent = dict.fromkeys(KINDS, 0.0)
    for event in events:
        if event.name != "all":
            spent[kind_of(event)] += event.self_cpu_time_total / whole
    spent["Python"] = 1 - sum(spent.values())
    return spent


def regions_of(instances: Tensor, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """One building in the middle (1,H,W), ten buildings (10,H,W), and all that the network predicts."""
    numbers = instances.unique()[1:]
    sizes = torch.stack([(instances == number).sum() for number in numbers])
    ten = instances[None] == numbers[sizes.argsort(descending=True)[:10], None, None]
    with torch.no_grad():
        logits = model(x)[:, 0]
    predicted = logits > logits.median()  # of weights that nobody trained, half of the tile
    return {"one building": ten[:1], "ten buildings": ten, "whole tile": predicted}


def measure(network: str, size: int, n_samples: int) -> pd.DataFrame:
    """Shares for each task of a network."""
    model, scene, rows = NETWORKS[network](), procedural_scene(3, size), []
    x = normalize(scene.image)
    for task, regions in regions_of(torch.from_numpy(scene.instances.astype("int64")), model, x).items():
        method, ran = EntropyCentric(model), []

        def run(method: EntropyCentric = method, regions: Tensor = regions, ran: list[str] = ran) -> None:
            estimate = method.estimate_regions(x, regions, n_samples=n_samples, perturbations_per_eval=8)
            ran.append(estimate.settings["ran_by"])

        rows.append({"network": network, "task": task, "ran by": "", **shares(run)} | {"ran by": ran[-1]})
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--n-samples", type=int, default=4)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for network in given.networks:
        replace_rows("profile", measure(network, given.size, given.n_samples))


if __name__ == "__main__":
    main()
