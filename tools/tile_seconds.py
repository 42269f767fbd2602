"""A process of `bench.py`: for each line that it reads, the seconds that all buildings of a tile take, by a runtime."""
from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import torch

from entropy_captum import EntropyCentric, rooftop_unet
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene


def main(size: int, runtime: str, out: str) -> None:
    """`runtime`: "none" for the network as it was written, which a build without programs takes too."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    scene, options = procedural_scene(2, size), {} if runtime == "none" else {"runtime": runtime}
    if options:
        from entropy_captum import faster
        faster.LONG_RUN = 0  # the timed run stands for one that is long
    method = EntropyCentric(rooftop_unet(), inference="full", **options)
    for _ in sys.stdin:
        start = time.perf_counter()
        maps = method.attribute_regions(normalize(scene.image), torch.from_numpy(scene.instances).long(), n_samples=4, grid_size=2,
                                        perturbations_per_eval=8)
        print(time.perf_counter() - start, flush=True)
    np.save(out, maps.numpy())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
