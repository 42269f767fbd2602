"""Train a noise network (U-Noise) for the bundled network on the train tiles in $ENTROPY_CAPTUM_DATA, and test it on val tiles.

Writes runs/unoise/noise.safetensors, its model card noise.md, and tests.csv: bits that noise on equal areas costs, for the noise
network's map, the one learned for each image, nearness and chance. Usage: train_noise.py [STEPS] [VAL TILES PER DATA SET]
"""
from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from entropy_captum.data import normalize
from entropy_captum.evaluation import random_attribution
from entropy_captum.methods import distance_from, nearness
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Question
from entropy_captum.region import objects
from entropy_captum.tiles import cut_centre
from entropy_captum.training import CropSampler, Recipe, find_splits, pair_of
from entropy_captum.unoise import NETWORK_RECIPE, noise_test, save_noise, train_noise, unoise
from entropy_captum.zoo import rooftop_unet

ROOT, SIZE, NAMES = Path(__file__).resolve().parent.parent, 256, ("whu", "inria")


def main(steps: int = NETWORK_RECIPE.steps, tiles: int = 4) -> None:
    """Train, save, test."""
    model, out = rooftop_unet(), ROOT / "runs" / "unoise"
    splits = find_splits([Path(os.environ["ENTROPY_CAPTUM_DATA"]) / name for name in NAMES])
    pairs = [[pair_of(pixels) for pixels in (tile.read() for tile in split.train) if pixels.label is not None]
             for split in splits.values()]
    recipe = replace(NETWORK_RECIPE, steps=steps)
    network, log = train_noise(model, CropSampler(pairs, Recipe(crop=128, scales=(0.9, 1.12))), recipe)
    out.mkdir(parents=True, exist_ok=True)
    print(save_noise(network, out / "noise.safetensors", model, recipe, log, f"the train tiles of {', '.join(NAMES)}"))
    rows = []
    for name, split in splits.items():
        for tile in split.val[:tiles]:
            image, label = tile.read()[:2]
            ids = None if label is None else objects(cut_centre(label, SIZE), 200)
            if ids is None or not ids.any():
                continue
            x, region = normalize(cut_centre(image, SIZE)), torch.from_numpy(ids == 1)[None]
            maps = {"noise network": network.attribution(x, region.float()), "unoise": unoise(model, x, region),
                    "nearness": nearness(distance_from(region)), "random": random_attribution(x, grid_feature_mask((SIZE, SIZE)))}
            for method, heat in maps.items():
                test = noise_test(Question(model, x, region), heat, (0.2, 0.5, 0.8), draws=2)
                rows.append({"dataset": name, "tile": tile.name, "method": method, "low": float(test.low.mean()),
                             "high": float(test.high.mean()), "gap": float(test.gap)})
    table = pd.DataFrame(rows)
    table.to_csv(out / "tests.csv", index=False)
    print(table.groupby("method")[["low", "high", "gap"]].mean().round(3))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:3]))
