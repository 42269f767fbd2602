"""What `make check-exact` runs: every architecture with every encoder against full forwards; writes a table.

Names of architectures as arguments: only those; the others keep their rows.
"""
from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pandas as pd
import torch
from benchmark_tables import replace_rows

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import exactness  # noqa: E402


def row(architecture: str, encoder: str) -> dict[str, object]:
    """One pair at 128 pixels, or at a size that is no multiple of 32 where the model takes one; float32 and float64."""
    facts: dict[str, object] = {"architecture": architecture, "encoder": encoder}
    try:
        model = exactness.build(architecture, encoder, 128)
        odd = model.requires_divisible_input_shape is False
        size = (133, 150) if odd else (128, 160)
        x = torch.randn(1, 3, *size)
        model(x)
    except (ValueError, KeyError, RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
        return facts | {"verdict": "not built by smp", "reason": str(error).splitlines()[0][:80]}
    found = [exactness.compare(model, x, exactness.place(where, size), every=4) for where in ("centre", "corner")]
    double = exactness.compare(model.double(), x.double(), exactness.place("border", size), every=8)
    worst, exact = max(f["difference"] for f in found), double["difference"]
    share = found[0]["whole"] / found[0]["layers"]
    verdict = "fails" if worst > 1e-4 or exact > 1e-10 else "incremental" if share == 0 else "partly"
    return facts | {"verdict": verdict, "size": f"{size[0]} x {size[1]}", "float32": f"{worst:.0e}", "float64": f"{exact:.0e}",
                    "whole_layers": f"{100 * share:.0f} %", "predicted_saving": round(found[0]["saving"], 1)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or exactness.ARCHITECTURES
    rows: list[dict[str, object]] = []
    for architecture in chosen:
        encoders = exactness.ENCODERS if architecture != "DPT" else ("tu-vit_tiny_patch16_224.augreg_in21k", *exactness.ENCODERS)
        for encoder in encoders:
            rows.append(row(architecture, encoder))
            print(" ".join(str(value) for value in rows[-1].values()), flush=True)
        replace_rows("exactness", pd.DataFrame([r for r in rows if r["architecture"] == architecture]))
    failed = [r for r in rows if r["verdict"] == "fails"]
    sys.exit(f"{len(failed)} pairs differ from full forwards" if failed else 0)
