"""What `make bench` runs: both sides of each comparison in one process, in alternation; medians and ratios."""
from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from benchmark_tables import replace_rows
from captum.attr import FeatureAblation
from distributed import Client, LocalCluster
from torch import nn

from entropy_captum import EntropyCentric, RegionScore, capture, rooftop_unet
from entropy_captum.adapter import Adapted
from entropy_captum.card import ModelCard
from entropy_captum.data import normalize
from entropy_captum.drawn import procedural_scene, write_scenes
from entropy_captum.faster import SESSIONS, make_program
from entropy_captum.forward import eval_mode
from entropy_captum.methods import Counter, ask_of_image, method_names, run_methods
from entropy_captum.models import load_model
from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget
from entropy_captum.runtimes import RUNTIMES, export_onnx
from entropy_captum.study import evaluate
from entropy_captum.tiles import Settings
from entropy_captum.workers import worker_model
from entropy_captum.zoo import Padded


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
    x, region, method = normalize(scene.image), torch.from_numpy(scene.label), EntropyCentric(model, inference="full")
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
    method = EntropyCentric(model, inference="full")
    method.attribute(x, region=region, n_samples=n_samples, grid_size=grid_size, perturbations_per_eval=4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory() -> None:
    """Each size in a process of its own: a peak cannot be taken back."""
    print("peak memory beyond bare forwards of the same batch (wanted: no growth with N or grid)")
    for n_samples, grid_size in ((2, 4), (16, 4), (2, 12)):
        command = [sys.executable, __file__, "--peak", str(n_samples), str(grid_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  N = {n_samples:2d}, grid {grid_size:2d}: {float(done.stdout):.1f} MB", flush=True)


def building(size: int, where: str) -> torch.Tensor:
    """A region of 48 x 48 pixels, (size, size), at the centre or near a corner."""
    at = (size - 48) // 2 if where == "centre" else 8
    region = torch.zeros(size, size)
    region[at:at + 48, at:at + 48] = 1
    return region


NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "U-Net resnet18": (lambda: smp.Unet("resnet18", encoder_weights=None).eval(), 14.0),
    "bundled (lite0)": (rooftop_unet, 12.0),
    "U-Net resnet34": (lambda: smp.Unet("resnet34", encoder_weights=None).eval(), 4.0),
    "U-Net efficientnet-b0": (lambda: smp.Unet("efficientnet-b0", encoder_weights=None).eval(), 2.5),
}


def incremental(repeats: int, only: str = "", size: int = 512, n_samples: int = 16) -> None:
    """One building, grid 8: time in full mode over time in incremental mode, and Captum's FeatureAblation beside them.

    A row costs the same in full mode whatever the grid, so that mode is timed on ten rows, before and after each
    incremental run, and multiplied: all 1,040 rows would take ten minutes each time. One row at a time, which is the
    default, and on a CPU the fastest.
    """
    rows = []
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for name, (build, wanted) in NETWORKS.items():
        if only and only not in name:
            continue
        model = build()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for where in ("centre", "corner"):
                region = building(size, where)
                ours = EntropyCentric(model, inference="incremental")
                full = EntropyCentric(model, inference="full")
                ablation = FeatureAblation(RegionScore(model, region))
                mask = grid_feature_mask((size, size), 3)
                ours.attribute(x, region=region, n_samples=2)  # captures the model
                ratios, per_forward = [], []
                for _ in range(repeats):
                    few = dict(region=region, n_samples=2, grid_size=2)
                    before = seconds(lambda full=full, few=few: full.attribute(x, **few)) / 10
                    captum = seconds(lambda a=ablation, m=mask: a.attribute(x, feature_mask=m)) / 10
                    fast = seconds(lambda ours=ours, region=region: ours.attribute(x, region=region, n_samples=n_samples))
                    after = seconds(lambda full=full, few=few: full.attribute(x, **few)) / 10
                    ratios.append((before + after) / 2 * n_samples * 65 / fast)
                    per_forward.append(captum * n_samples * 65 / fast)
                rows.append({"network": name, "threads": threads, "region": where, "saving": statistics.median(ratios),
                             "wanted": wanted, "over_feature_ablation": statistics.median(per_forward)})
                print("  " + "  ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
        replace_rows("incremental", pd.DataFrame(rows))


def explain(repeats: int) -> None:
    """What `entropy-captum explain` computes for one building: 512 x 512, grid 8, N = 32; `auto` beside `full`."""
    torch.set_num_threads(1)
    scene = procedural_scene(2, 512)
    ids, sizes = scene.instances, np.bincount(scene.instances.ravel())
    sizes[0] = 0
    chosen = int(np.argmin(np.abs(sizes - 48 * 48)))
    model, x, region = Padded(rooftop_unet()), normalize(scene.image), torch.from_numpy(ids == chosen)
    auto, full = EntropyCentric(model), EntropyCentric(model, inference="full")
    print(f"explain, 512 x 512, grid 8, N = 32, a building of {sizes[chosen]} pixels, with capturing: full over auto")
    for _ in range(repeats):
        before = seconds(lambda: full.attribute(x, region=region, n_samples=2, grid_size=2)) / 10
        fast = seconds(lambda: auto.attribute(x, region=region, n_samples=32))
        after = seconds(lambda: full.attribute(x, region=region, n_samples=2, grid_size=2)) / 10
        print(f"  {(before + after) / 2 * 32 * 65 / fast:.1f}", flush=True)


def keep_ratio(name: str, measured: float, wanted: str) -> None:
    """One ratio of a study, in the table that the documentation reads."""
    replace_rows("study", pd.DataFrame([{"ratio": name, "measured": measured, "wanted": wanted}]))


def study_overhead(folder: Path, repeats: int) -> None:
    """The time of a study over that of as many bare forwards, one row at a time."""
    settings, ratios = Settings(grid_size=4, n_samples=4), []
    model = worker_model(Padded(rooftop_unet()))
    x = torch.zeros(1, 3, 256, 256).to(memory_format=torch.channels_last)
    for repeat in range(repeats + 1):
        with Counter(model) as counter:
            took = seconds(lambda repeat=repeat: evaluate(model, folder, folder / f"run-{repeat}", settings, limit=1,
                                                          show_progress=False))
        ratios.append(took / seconds(lambda rows=counter.rows: bare_forwards(model, x, rows, 1)))
    print(f"  one process: {statistics.median(ratios[1:]):.2f} of its forwards (wanted: at most 1.1)", flush=True)
    keep_ratio("study over its forwards", statistics.median(ratios[1:]), "at most 1.1")


def study_workers(folder: Path, repeats: int) -> None:
    """The time of a study with one Dask worker over that with two, a thread each; clusters are started and warm before."""
    settings, ratios = Settings(grid_size=4, n_samples=4, methods=("entropy", "sobol", "random")), []
    model = Padded(rooftop_unet())
    def client(workers: int) -> Client:
        return Client(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
    with client(1) as one, client(2) as two:
        for repeat in range(repeats + 1):
            took = [seconds(lambda c=c, k=k, repeat=repeat: evaluate(model, folder, folder / f"workers-{k}-{repeat}", settings,
                                                                     cluster=c, show_progress=False))
                    for k, c in enumerate((one, two))]
            ratios.append(took[0] / took[1])
    print(f"  two workers: {statistics.median(ratios[1:]):.2f} times one (wanted: at least 1.6)", flush=True)
    keep_ratio("one worker over two", statistics.median(ratios[1:]), "at least 1.6")


def study(repeats: int) -> None:
    """What a study costs beside its forwards, and what a second worker brings."""
    print("study, drawn tiles of 256 x 256, grid 4, N = 4, one thread each")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_scenes(Path(name) / "drawn", range(6), 256)
        study_overhead(Path(name), repeats)
        study_workers(Path(name), repeats)


def cost(repeats: int) -> None:
    """The time of each method's map over that of one forward of its batch, per row; a whole class and a building.

    Table II's setting: 256 x 256, grid 8, N = 8. The forward is timed beside each map, in batches of the same size.
    """
    print("cost of a map in forwards, 256 x 256, grid 8, N = 8, one thread")
    torch.set_num_threads(1)
    model, scene, batch = rooftop_unet(), procedural_scene(2, 256), 8
    x = normalize(scene.image)
    regions = {"class": torch.from_numpy(scene.label)[None].float(), "building": building(256, "centre")[None]}
    for name, region in regions.items():
        question, rows = ask_of_image(model, x, region), []
        for method in method_names():
            run_methods(question, Budget(2, batch), [method])  # captures the model
            ratios = []
            for _ in range(repeats):
                forward = seconds(lambda: bare_forwards(model, x, 4 * batch, batch)) / (4 * batch)
                took = seconds(lambda q=question, method=method: run_methods(q, Budget(8, batch), [method]))
                forward += seconds(lambda: bare_forwards(model, x, 4 * batch, batch)) / (4 * batch)
                ratios.append(2 * took / forward)
            rows.append({"region": name, "method": method, "time_over_one_forward": statistics.median(ratios)})
            print(f"  {name}, {method}: {rows[-1]['time_over_one_forward']:.1f}", flush=True)
        replace_rows("cost", pd.DataFrame(rows))


PRECISIONS: dict[str, tuple[torch.dtype | None, torch.memory_format]] = {
    "float32": (None, torch.contiguous_format), "float32, channels last": (None, torch.channels_last),
    "bfloat16 autocast": (torch.bfloat16, torch.contiguous_format), "float16 autocast": (torch.float16, torch.contiguous_format)}


def precision(repeats: int) -> None:
    """Full mode in other precisions and memory formats: bare forwards over `attribute`, and the largest change of a score."""
    print("full inference, 256 x 256, grid 4, N = 4, one thread: bare forwards over ours (wanted: at least 0.95)")
    torch.set_num_threads(1)
    scene = procedural_scene(2)
    region, rows, exact = torch.from_numpy(scene.label), [], torch.empty(0)
    for name, (dtype, layout) in PRECISIONS.items():
        model = rooftop_unet().to(memory_format=layout)
        x, method = normalize(scene.image).to(memory_format=layout), EntropyCentric(model, inference="full")
        ours, bare, scores = [], [], torch.empty(0)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            for _ in range(repeats + 1):
                ours.append(seconds(lambda: method.attribute(x, region=region, n_samples=4, grid_size=4,  # noqa: B023
                                                             perturbations_per_eval=4)))
                bare.append(seconds(lambda: bare_forwards(model, x, 4 * 17, 4)))  # noqa: B023
            scores = method.estimate(x, region=region, n_samples=4, grid_size=4, perturbations_per_eval=4).scores
        exact = scores if name == "float32" else exact
        rows.append({"precision": name, "throughput": statistics.median(b / a for a, b in zip(ours[1:], bare[1:], strict=True)),
                     "score_change": float((scores - exact).abs().max() / exact.abs().max())})
        print("  " + "  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    replace_rows("precision", pd.DataFrame(rows))


def recorded(repeats: int) -> None:
    """The time to record a network where torch decomposes the record, over ours, which rewrites it by hand."""
    print("capture, 256 x 256, one thread: with torch's decomposition over without")
    torch.set_num_threads(1)
    networks = {"bundled": rooftop_unet(), "resnet34": smp.Unet("resnet34", encoder_weights=None),
                "efficientnet-b0": smp.Unet("efficientnet-b0", encoder_weights=None)}
    for name, model in networks.items():
        ratios = []
        for _ in range(repeats + 1):
            ours = seconds(lambda: capture.capture(model, torch.zeros(1, 3, 256, 256)))  # noqa: B023
            with patch.object(capture, "functional", lambda program: program.run_decompositions({})):
                ratios.append(seconds(lambda: capture.capture(model, torch.zeros(1, 3, 256, 256))) / ours)  # noqa: B023
        low, *_, high = sorted(ratios[1:])
        print(f"  {name}: median {statistics.median(ratios[1:]):.1f}, from {low:.1f} to {high:.1f}", flush=True)


def imports(repeats: int) -> None:
    """The time of a first import, and of a command's answer to a mistake, in a new process over that of what they need."""
    def start(*command: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, *command], capture_output=True))
    command = "from entropy_captum.cli import main; main()"
    sides = {"from entropy_captum import * over import torch, captum": (["-c", "from entropy_captum import *"], "torch, captum"),
             "--help over import numpy, typer": (["-c", command, "--help"], "numpy, typer"),
             "a wrong path over import numpy, typer": (["-c", command, "explain", "nowhere.png"], "numpy, typer")}
    for name, (ours, theirs) in sides.items():
        ratios = [start(*ours) / start("-c", f"import {theirs}") for _ in range(repeats + 1)]
        print(f"{name} (wanted: at most 1.5): median {statistics.median(ratios[1:]):.2f}", flush=True)


def programs_of(model: Adapted, size: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The forwards of a network, by torch and by each other program that takes it."""
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"torch": model}
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, Path(folder) / "network.onnx", (size, size))
        for name, kind in RUNTIMES.items():
            program = kind(path)
            program.prepare()
            found[name] = lambda x, program=program: program(x)["scores"]
    return found


def runtimes(repeats: int, only: str = "", size: int = 512) -> None:
    """Rows per second of full forwards by each program, and how far its logits are from torch's at most; one thread."""
    torch.set_num_threads(1)
    print(f"rows per second of full forwards, {size} x {size}, one thread")
    scene = normalize(procedural_scene(2, size).image)
    for name, (build, _) in NETWORKS.items():
        if name not in ("bundled (lite0)", "U-Net resnet34") or only not in name:
            continue
        programs, rows = programs_of(load_model(build(), ModelCard()), size), []
        for batch in (1, 8):
            x = scene * torch.linspace(1, 0.5, batch)[:, None, None, None]
            with torch.no_grad():
                outputs = {program: run(x) for program, run in programs.items()}  # warms up
                times: dict[str, list[float]] = {program: [] for program in programs}
                for _ in range(repeats):
                    for program, run in programs.items():
                        times[program].append(seconds(lambda run=run, x=x: run(x)))
            for program, own in times.items():
                ratio = statistics.median(a / b for a, b in zip(times["torch"], own, strict=True))
                rows.append({"network": name, "batch": batch, "program": program, "version": version(program),
                             "rows_per_second": batch / statistics.median(own), "over_torch": ratio,
                             "largest_logit": float(outputs["torch"].abs().max()),
                             "largest_difference": f"{float((outputs[program] - outputs['torch']).abs().max()):.0e}"})
                print("  " + "  ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
        replace_rows("runtimes", pd.DataFrame(rows))


def rows_faster(repeats: int, only: str = "", size: int = 512) -> None:
    """Full forwards in batches of 8: the network as it was written over each runtime, and how far logits are off."""
    torch.set_num_threads(1)
    print(f"full forwards, {size} x {size}, batch 8, one thread: the network as it was written over ours (wanted: at least 2.5)")
    scene = normalize(procedural_scene(2, size).image)
    x = scene * torch.linspace(1, 0.5, 8)[:, None, None, None]
    for name, (build, _) in NETWORKS.items():
        if name not in ("bundled (lite0)", "U-Net resnet34") or only not in name:
            continue
        torch.manual_seed(0)
        model = build()
        programs = {runtime: make_program(runtime, model, scene) for runtime in ("torch", *SESSIONS)}
        with torch.no_grad(), eval_mode(model):
            want = model(x)
            off = {runtime: float((run(x) - want).abs().max()) for runtime, run in programs.items()}
            ratios: dict[str, list[float]] = {runtime: [] for runtime in programs}
            for _ in range(repeats):
                for runtime, run in programs.items():
                    before = seconds(lambda model=model: model(x))
                    ratios[runtime].append(before / seconds(lambda run=run: run(x)))
        for runtime, own in ratios.items():
            print(f"  {name}, {runtime}: median {statistics.median(own):.2f}, logits off by {off[runtime]:.0e} of "
                  f"{float(want.abs().max()):.1f}", flush=True)


@contextmanager
def built_at(before: str | None) -> Iterator[Path | None]:
    """The folder of another build: a checkout, or a commit of this repository, checked out for as long as it is needed."""
    if before is None or Path(before).is_dir():
        yield None if before is None else Path(before)
        return
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        subprocess.run(["git", "-C", root, "worktree", "add", "--detach", "--quiet", place, before], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", root, "worktree", "remove", "--force", place], check=True)


def tile_of_buildings(repeats: int, before: Path | None = None, size: int = 512) -> None:
    """All buildings of a tile from one set of forwards: seconds of each `runtime`, beside another build's (`--before`).

    grid 2, N = 4, batch 8: a row costs the same in any grid, and the search for a program, made once for a network, is not counted.
    """
    script = Path(__file__).with_name("tile_seconds.py")
    print(f"attribute_regions of a whole tile, {size} x {size}, one thread, batch 8: another build, or the network, over ours "
          "(wanted: at least 2.5)")
    sides = {"before": (before, "none"), **{name: (Path(__file__).parents[1], name) for name in ("torch", "auto")}}
    if before is None:
        sides["before"] = (Path(__file__).parents[1], "none")
    with tempfile.TemporaryDirectory() as folder:
        running = {name: subprocess.Popen([sys.executable, script, str(size), runtime, f"{folder}/{name}.npy"], text=True,
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
                   for name, (root, runtime) in sides.items()}

        def once(process: subprocess.Popen[str]) -> float:
            assert process.stdin and process.stdout
            process.stdin.write("go\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        for process in running.values():
            once(process)  # what is made once
        taken = [{name: once(process) for name, process in running.items()} for _ in range(repeats)]
        for process in running.values():
            process.communicate()
        maps = {name: np.load(f"{folder}/{name}.npy") for name in sides}
    for name in ("torch", "auto"):
        print(f"  runtime={name!r}: median {statistics.median(t['before'] / t[name] for t in taken):.2f}", flush=True)
    # Another build may have another design, so that scores are compared within ours.
    print(f"  scores of both differ by at most {np.abs(maps['auto'] - maps['torch']).max():.0e}", flush=True)


def whole_tile(repeats: int) -> None:
    """The region is the whole tile: `auto` must not be slower than full mode."""
    torch.set_num_threads(1)
    print("whole tile as region, 256 x 256, grid 8, N = 4: full over auto (wanted: at least 0.97)")
    model, x, region = rooftop_unet(), torch.randn(1, 3, 256, 256), torch.ones(256, 256)
    auto, full = EntropyCentric(model), EntropyCentric(model, inference="full")
    arguments = dict(region=region, n_samples=4, perturbations_per_eval=5)
    auto.attribute(x, **arguments | {"n_samples": 2})
    ratios = []
    for _ in range(repeats):
        slow = seconds(lambda: full.attribute(x, **arguments))
        ratios.append(slow / seconds(lambda: auto.attribute(x, **arguments)))
    print(f"  median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}", flush=True)


def peak_with_budget(mebibytes: int) -> float:
    """Peak memory in MB of an incremental run beyond the captured model, for a budget."""
    torch.set_num_threads(1)
    model, region = rooftop_unet(), building(512, "centre")
    x = torch.randn(1, 3, 512, 512)
    EntropyCentric(model, inference="incremental").explain_plan(x, region=region)
    method = EntropyCentric(model, inference="incremental", max_memory=mebibytes * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status", encoding="ascii") as lines:
        now = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    method.attribute(x, region=region, n_samples=8, grid_size=4)
    return (max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, before) - now) / 1024


def budgets() -> None:
    """Peak memory of incremental runs at two budgets."""
    print("incremental, 512 x 512: peak memory (wanted: within the budget)")
    for mebibytes in (500, 1500):
        done = subprocess.run([sys.executable, __file__, "--budget", str(mebibytes)], capture_output=True, text=True, check=True)
        print(f"  budget {mebibytes} MB: {float(done.stdout):.0f} MB", flush=True)


def peers(quick: bool = False) -> None:
    """Our score beside Captum's and Xplique's methods: rows and seconds until a map is its own converged one; see `peers.py`."""
    print("rows and seconds until a map agrees with its own converged one (wanted: every peer at least 5 times ours)",
          flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name("peers.py"), "quick" if quick else "128"], check=True)


PARTS = {"imports": imports, "capture": recorded, "overhead": overhead, "precision": precision, "study": study, "cost": cost,
         "memory": lambda _: memory(), "whole_tile": whole_tile, "budgets": lambda _: budgets(),
         "incremental": incremental, "runtimes": runtimes, "explain": explain, "rows_faster": rows_faster,
         "tile_of_buildings": tile_of_buildings, "peers": lambda _: peers()}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="incremental, runtimes, rows_faster: networks with this in their name")
    parser.add_argument("--before", help="tile_of_buildings: a checkout of another build, or its commit, to compare with")
    parser.add_argument("--quick", action="store_true", help="rows_faster, tile_of_buildings, peers: images of 128 x 128, once")
    parser.add_argument("--peak", type=int, nargs=2, metavar=("N", "GRID"), help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_of(*arguments.peak))
    elif arguments.budget:
        print(peak_with_budget(arguments.budget))
    else:
        for part in arguments.parts:
            small, repeats = ((128,), 1) if arguments.quick else ((), arguments.repeats)
            if part == "rows_faster":
                rows_faster(repeats, arguments.only, *small)
            elif part in ("incremental", "runtimes"):
                PARTS[part](arguments.repeats, arguments.only)
            elif part == "peers":
                peers(arguments.quick)
            elif part == "tile_of_buildings":
                with built_at(arguments.before) as folder:
                    tile_of_buildings(repeats, folder, *small)
            else:
                PARTS[part](arguments.repeats)
