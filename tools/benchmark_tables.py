"""The tables in nbs/benchmarks: rows are renewed group by group; `made_with.csv` says what each group was made with, and when."""
from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parent.parent / "nbs" / "benchmarks"
#: The tables, and the column whose values name the groups of rows that one run renews.
KEYS = {"adaptive-shares": "grid", "adaptive-top": "tile", "cost": "region", "designs": "grid", "designs-tried": "grid",
        "exactness": "architecture", "incremental": "network", "pairs": "sampler", "peers": "case", "precision": "precision",
        "profile": "network", "refine": "case", "refine-coverage": "n", "runtimes": "network", "study": "ratio"}


def made_with() -> dict[str, str]:
    """What a number that is measured now depends on; `machine_threads`: of the machine, not those that a part uses."""
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version(), "torch": version("torch"),
            "numpy": version("numpy"), "machine_threads": str(os.cpu_count())}


def write_facts(results: Path, settings: dict[str, object], **weights: str | None) -> None:
    """What rows were made with, beside them: settings, hashes of weights, versions."""
    facts = {"settings": settings, **weights, "versions": {name: version(name) for name in ("torch", "captum", "numpy", "scipy")}}
    results.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


def renew(path: Path, rows: pd.DataFrame, key: list[str]) -> None:
    """Put rows in the place of those with the same key; the others stay to the letter, so that a run may be stopped or partial."""
    if path.exists():
        old = pd.read_csv(path, dtype=str, keep_default_na=False)
        same = old.set_index(key).index.isin(rows[key].astype(str).set_index(key).index)
        rows = pd.concat([old[~same], rows])
    path.parent.mkdir(exist_ok=True)
    rows.to_csv(path, index=False)


def replace_rows(table: str, measured: pd.DataFrame, folder: Path = FOLDER) -> None:
    """Renew groups of rows of a table, and what they were made with."""
    key = KEYS[table]
    renew(folder / f"{table}.csv", measured.round(3), [key])
    notes = [{"table": table, "rows": str(group), **made_with()} for group in measured[key].unique()]
    renew(folder / "made_with.csv", pd.DataFrame(notes), ["table", "rows"])
