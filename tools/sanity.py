"""Does a map know the network? How alike the maps of a network are and those of what is left of it, method by method.

The same building is explained anew: by another design (what a method can reach at best), by the network after its weights were
shuffled, one part after the other from the output to the input, and by a network that was trained with shuffled labels (which
`make train-others` makes). Twelve drawn scenes and twelve val tiles in $ENTROPY_CAPTUM_DATA, 256 pixels, N = 32.

Rows go to nbs/results/sanity_cascade_256.csv; those that are there are kept and what is missing is made, the most telling first, so
that a run can be stopped at any time and goes on later. Maps (means per cell) stay in runs/sanity.
Usage: sanity.py [--minutes M] [--states "another design" stem] [--real]
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmark_tables import write_facts
from scipy.stats import rankdata
from torch import Tensor, nn

from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene
from entropy_captum.forward import weights_hash
from entropy_captum.methods import ask_of_image, distance_from, feature_ids, nearness, run_methods
from entropy_captum.question import Budget
from entropy_captum.region import RegionScore, objects
from entropy_captum.tiles import cell_means, cut_centre, find_sources, rank_correlation, rank_given
from entropy_captum.zoo import rooftop_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "sanity_cascade_256.csv"
MAPS = ROOT / "runs" / "sanity"
LABELS = ROOT / "runs" / "shuffled" / "weights.safetensors"
SIZE, SAMPLES, CASES = 256, 32, 12
PIXELS = (200, 4096)  # of a building: at least what has an inside, at most a sixteenth of the tile
#: Methods that are run together, and how late they come: a higher number waits for the telling states of the others.
FAMILIES = {("entropy", "entropy-object", "sobol", "interaction"): 0, ("grad-cam", "input-x-gradient", "occlusion"): 0,
            ("score-cam", "score-cam-increase"): 3, ("unoise",): 3, ("rise",): 5, ("kernel-shap",): 6}


@dataclass(frozen=True, eq=False)
class Case:
    """One building (1,H,W) of one image (1,3,H,W), with the seed of what is shuffled for it."""

    dataset: str
    scene: str
    tile: str
    inputs: Tensor
    region: Tensor
    seed: int


def building_of(ids: np.ndarray) -> Tensor | None:
    """The largest object (1,H,W) of some ids (H,W) among those of a fitting size."""
    sizes = np.bincount(ids.ravel())
    sizes[0] = 0
    sizes[(sizes < PIXELS[0]) | (sizes > PIXELS[1])] = 0
    return torch.from_numpy(ids == sizes.argmax())[None] if sizes.any() else None


def drawn_cases() -> Iterator[Case]:
    """A building of each of some drawn scenes."""
    for seed in range(2, 2 + CASES):
        scene = procedural_scene(seed, SIZE)
        if (region := building_of(scene.instances)) is not None:
            yield Case("drawn", f"scene_{seed}", f"scene_{seed}", normalize(scene.image), region, seed)


def val_cases() -> Iterator[Case]:
    """A building of each of some val tiles of 0.2 to 0.3 m, the data sets in turn."""
    root, found = Path(os.environ["ENTROPY_CAPTUM_DATA"]), 0
    sources = find_sources(root, skip=[f"massachusetts/{split}" for split in ("train", "val")])
    for number, source in enumerate(s for s in sources if s.dataset.endswith("/val")):
        image, label = source.tile.read()[:2]
        image, label = cut_centre(image, SIZE), cut_centre(label, SIZE)
        region = building_of(objects(label)) if label.shape == (SIZE, SIZE) else None
        if region is not None and found < CASES:
            found += 1
            yield Case(source.dataset, source.scene, source.tile.name, normalize(image), region, 100 + number)


def parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The network's parts from the output to the input."""
    blocks, encoder = list(model.decoder.blocks), model.encoder.model
    stages = list(encoder.blocks)
    return ({"head": [model.segmentation_head]} | {f"decoder {k}": [blocks[k]] for k in reversed(range(len(blocks)))}
            | {f"encoder {k}": [stages[k]] for k in reversed(range(len(stages)))} | {"stem": [encoder.conv_stem, encoder.bn1]})


#: The states of the network and how late each comes; a shuffled one has the name of its last part, "stem" is all of them.
STATES = {"another design": 0, "stem": 0, "labels": 0, "decoder 0": 1, "head": 2} | {
    name: 4 for name in parts(rooftop_unet()) if name not in ("stem", "decoder 0", "head")}


def shuffled(last: str, seed: int) -> nn.Module:
    """The bundled network with the numbers in every weight permuted, from the head to the named part."""
    model, generator = copy.deepcopy(rooftop_unet()), torch.Generator().manual_seed(seed)
    for name, modules in parts(model).items():
        for module in modules:
            for weight in module.parameters():
                order = torch.randperm(weight.numel(), generator=generator)
                weight.data = weight.data.flatten()[order].view_as(weight)
        if name == last:
            break
    return model


@cache
def network_of(state: str, seed: int) -> nn.Module:
    """The network in a state."""
    if state == "labels":
        return rooftop_unet(LABELS)
    return rooftop_unet() if state in ("itself", "another design") else shuffled(state, seed)


def maps_of(case: Case, state: str, family: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The means per cell of a family's maps of a case, from the file of an earlier run where there is one."""
    path = MAPS / f"{case.dataset}_{case.tile}_{state}_{family[0]}.npz".replace("/", "_").replace(" ", "_")
    if not path.exists():
        question = ask_of_image(network_of(state, case.seed), case.inputs, case.region)
        found = run_methods(question, Budget(SAMPLES, 8, int(state != "itself")), family)
        cells = {name: cell_means(each.maps[0], feature_ids(question)) for name, each in found.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, **cells)
        path.with_suffix(".part").replace(path)
    with np.load(path) as saved:
        return dict(saved)


def rank_given_all(a: np.ndarray, b: np.ndarray, given: list[np.ndarray]) -> float:
    """Spearman's partial rank correlation given several others, all (d,): of what regression on their ranks leaves of the ranks."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    known = np.stack([np.ones(len(a)), *map(rankdata, given)], 1)
    left = [ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0] for ranks in (rankdata(a), rankdata(b))]
    return float(np.corrcoef(left)[0, 1])


def rows_of(case: Case, state: str, family: tuple[str, ...]) -> list[dict[str, object]]:
    """A row per method: how alike its maps of a case are for the network itself and in a state.

    contrast: how far the pixels of a cell lie from what replaces them, which moves any network. scale: of the maps' means.
    """
    itself, other = maps_of(case, "itself", family), maps_of(case, state, family)
    question = ask_of_image(network_of(state, case.seed), case.inputs, case.region)
    ids = feature_ids(question)
    near = cell_means(nearness(distance_from(case.region))[0], ids)
    contrast = cell_means(case.inputs[0].abs().mean(0), ids)
    with torch.no_grad():
        sure = float(RegionScore(question.forward, case.region)(case.inputs))
    facts = {"dataset": case.dataset, "scene": case.scene, "tile": case.tile, "state": state, "status": "ok", "confidence": sure}
    return [facts | {"method": name, "correlation": rank_correlation(itself[name], other[name]),
                     "given_nearness": rank_given(itself[name], other[name], near),
                     "given_both": rank_given_all(itself[name], other[name], [near, contrast]),
                     "scale": float(np.abs(other[name]).mean() / np.abs(itself[name]).mean()) if np.any(itself[name]) else np.nan}
            for name in family]


def jobs() -> list[tuple[Case, str, tuple[str, ...]]]:
    """What is to be made, the most telling first: drawn before real, all shuffled before the steps on the way there."""
    cases = [*drawn_cases(), *(val_cases() if "ENTROPY_CAPTUM_DATA" in os.environ else ())]
    every = [(STATES[state] + late + (case.dataset != "drawn"), case, state, family)
             for case in cases for state in STATES for family, late in FAMILIES.items() if state != "labels" or LABELS.is_file()]
    return [(case, state, family) for _, case, state, family in sorted(every, key=lambda one: one[0])]


def write_own_facts() -> None:
    """What the rows were made with, beside them; of a network that is not at hand what was known of it."""
    labels = json.loads(RESULTS.with_suffix(".json").read_text())["weights_of_shuffled_labels"] if RESULTS.exists() else None
    settings = {"size": SIZE, "n_samples": SAMPLES, "grid_size": 8, "baseline": "grey", "seeds": [0, 1],
                "building_pixels": PIXELS, "states": list(STATES), "methods": [m for family in FAMILIES for m in family]}
    write_facts(RESULTS, settings, weights=weights_hash(rooftop_unet()),
                weights_of_shuffled_labels=weights_hash(rooftop_unet(LABELS)) if LABELS.is_file() else labels)


def run(minutes: float, states: list[str], real: bool) -> None:
    """Make the rows of some states that are missing, for so long; real: only those of val tiles."""
    end = time.monotonic() + 60 * minutes
    done = set()
    if RESULTS.exists():
        done = set(pd.read_csv(RESULTS)[["dataset", "tile", "state", "method"]].itertuples(index=False, name=None))
    write_own_facts()
    wanted = [job for job in jobs() if job[1] in states and not (real and job[0].dataset == "drawn")]
    todo = [job for job in wanted if (job[0].dataset, job[0].tile, job[1], job[2][0]) not in done]
    for count, (case, state, family) in enumerate(todo):
        if time.monotonic() > end:
            print(f"{len(todo) - count} of {len(todo)} left; the same command goes on")
            return
        start = time.monotonic()
        rows = pd.DataFrame(rows_of(case, state, family)).round(4)
        rows.to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False)
        print(f"{case.dataset}/{case.tile} {state} {family[0]} {time.monotonic() - start:.0f} s "
              f"{rows['given_nearness'].tolist()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so many")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES), help="only these states of the network")
    parser.add_argument("--real", action="store_true", help="only val tiles")
    torch.set_num_threads(1)
    run(**vars(parser.parse_args()))
