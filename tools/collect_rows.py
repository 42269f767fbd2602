"""Gather the rows of studies for a notebook: run folders -> nbs/results/NAME.parquet and NAME.json.

Numbers and names only, without the columns of seconds, which differ from machine to machine, and without tiles that failed. Where
two runs have the same method on the same tile with the same seed and baseline, the later run's row stays. `--without` leaves out
methods that are measured better elsewhere.
"""
import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from entropy_captum.report import find_run
from entropy_captum.statistics import tile_counts
from entropy_captum.study import read_facts, read_rows, scenes_of, with_scenes

RESULTS = Path(__file__).parent.parent / "nbs" / "results"
KEYS = ["dataset", "tile", "unit", "baseline", "seed", "method"]


def collect(name: str, runs: Sequence[Path], results: Path = RESULTS, without: Sequence[str] = (),
            refresh: bool = False, extend: bool = False) -> pd.DataFrame:
    """Write the rows of some runs, and what each was run with by its id; returns the rows.

    extend: rows that are there stay, and those of the runs are added. refresh: rows that are there and that no run made anew stay,
    but for their likeness to maps that were; a run's rows of other tiles or methods, and other columns, are left out.
    """
    homes = [find_run(run) for run in runs]
    found = [with_scenes(read_rows(sorted((home / "rows").rglob("*.parquet"))), scenes_of(read_facts(home))) for home in homes]
    rows = pd.concat(found, ignore_index=True)
    # Not what a run says about itself: the folders of a machine.
    facts = {home.name: {name: fact for name, fact in read_facts(home).items() if name != "about"} for home in homes}
    order = list(dict.fromkeys(method for each in facts.values() for method in each["settings"]["methods"]))
    rows = rows[(rows.status != "error") & ~rows.method.isin(without)].drop_duplicates(KEYS, keep="last")
    if refresh or extend:
        old = pd.read_parquet(results / f"{name}.parquet")
        facts = json.loads((results / f"{name}.json").read_text()) | facts
    if extend:
        rows = pd.concat([old, rows], ignore_index=True).drop_duplicates(KEYS, keep="last")
        order = list(dict.fromkeys([*old.method.dropna(), *order]))
    elif refresh:
        known = old[KEYS].merge(rows, on=KEYS)[list(old)]
        # What the other rows say of their likeness to maps that were made anew is no longer true.
        stale = [c for c in old if c.startswith("rank_to_") and c.removeprefix("rank_to_").removesuffix("_given_nearness")
                 in set(known.method.dropna())]
        rows = pd.concat([old.assign(**dict.fromkeys(stale, float("nan"))), known], ignore_index=True)
        rows = rows.drop_duplicates(KEYS, keep="last")
        order = list(dict.fromkeys(old.method.dropna()))
    rows = rows.assign(method=pd.Categorical(rows.method, order)).sort_values(KEYS, ignore_index=True).astype({"method": object})
    results.mkdir(parents=True, exist_ok=True)
    rows[[column for column in rows if "seconds" not in column]].to_parquet(results / f"{name}.parquet", index=False)
    (results / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the files in nbs/results")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of `entropy-captum evaluate`")
    parser.add_argument("--without", nargs="+", default=(), help="methods whose rows are left out")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--refresh", action="store_true", help="replace only rows that are in the files already, keep the others")
    kept.add_argument("--extend", action="store_true", help="keep the rows that are in the files, and add those of the runs")
    arguments = parser.parse_args()
    print(tile_counts(collect(arguments.name, arguments.runs, without=arguments.without, refresh=arguments.refresh,
                              extend=arguments.extend)))
