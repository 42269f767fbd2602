"""Gather the rows of a study for a notebook: RUN folder -> nbs/results/NAME.parquet and NAME.json.

Numbers and names only, without the columns of seconds, which differ from machine to machine, and without tiles that failed.
"""
import argparse
import shutil
from pathlib import Path

from entropy_captum.report import find_run
from entropy_captum.statistics import tile_counts
from entropy_captum.study import read_rows

RESULTS = Path(__file__).parent.parent / "nbs" / "results"


def collect(run: Path, name: str, results: Path = RESULTS) -> Path:
    """Write the rows of a run and what it was run with; returns the Parquet file."""
    home = find_run(run)
    rows = read_rows(sorted((home / "rows").rglob("*.parquet")))
    print(tile_counts(rows))
    rows = rows[rows.status != "error"]
    results.mkdir(parents=True, exist_ok=True)
    rows[[column for column in rows if "seconds" not in column]].to_parquet(results / f"{name}.parquet", index=False)
    shutil.copy(home / "run.json", results / f"{name}.json")
    return results / f"{name}.parquet"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder of `entropy-captum evaluate`")
    parser.add_argument("name", help="of the files in nbs/results")
    arguments = parser.parse_args()
    print(collect(arguments.run, arguments.name))
