"""What `make docs-check` runs: every notebook again, and its outputs beside the stored ones.

A cell marked `#| timed` shows measured times, which are never the same: it has to run, and is not compared.
"""
from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

NBS = Path(__file__).resolve().parent.parent / "nbs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.I)
# What differs from run to run and means nothing: addresses, temporary folders, ports, progress bars.
PASSING = re.compile(r"0x[0-9a-f]+|/tmp/\w+|127\.0\.0\.1:\d+|\d+%\|.*|uuid=\S+")
RELATIVE, ABSOLUTE, PIXELS = 0.02, 2e-3, 4.0


def texts_differ(stored: str, fresh: str) -> bool:
    """Other words, or a number that is off by more than rounding across machines."""
    old, new = (PASSING.sub("", text) for text in (stored, fresh))
    if NUMBER.sub("#", old).split() != NUMBER.sub("#", new).split():
        return True
    a, b = (np.array([float(n) for n in NUMBER.findall(text)]) for text in (old, new))
    return not np.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE)


def pictures_differ(stored: str, fresh: str) -> bool:
    """Another size, or a mean difference of more than `PIXELS` levels."""
    old, new = (np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float) for data in (stored, fresh))
    return old.shape != new.shape or float(np.abs(old - new).mean()) > PIXELS


def contents(cell: NotebookNode) -> dict[str, str]:
    """A cell's outputs by kind; of one output only the richest text that people read."""
    found: dict[str, str] = {}
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            if output.name == "stdout":
                found["text"] = found.get("text", "") + output.text
            continue
        data = output.get("data", {})
        images = {kind: value for kind, value in data.items() if kind in ("image/png", "image/jpeg")}
        found |= images
        if not images:
            found["text"] = found.get("text", "") + data.get("text/plain", "")
    return found


def differences(path: Path) -> list[str]:
    """What is not as stored in a notebook after running it."""
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    try:
        NotebookClient(fresh, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    except CellExecutionError as error:
        return [f"does not run: {error.ename}: {error.evalue}"]
    found = []
    for number, (old, new) in enumerate(zip(stored.cells, fresh.cells, strict=True)):
        if re.search(r"^#\|\s*timed", old.source, re.M):
            continue
        before, after = contents(old), contents(new)
        if set(before) != set(after):
            found.append(f"cell {number}: shows {sorted(after)}, stored are {sorted(before)}")
        for kind in set(before) & set(after):
            compare = texts_differ if kind == "text" else pictures_differ
            if compare(before[kind], after[kind]):
                shown = f"\n    stored: {before[kind][:300]!r}\n    now:    {after[kind][:300]!r}" if kind == "text" else ""
                found.append(f"cell {number}: another {kind}{shown}")
    return found


def main() -> None:
    names = sys.argv[1:]
    stale = False
    for path in sorted(NBS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts or (names and path.stem not in names):
            continue
        found = differences(path)
        print(f"{path.relative_to(NBS)}: {'fresh' if not found else 'STALE'}", *found, sep="\n  ", flush=True)
        stale |= bool(found)
    if stale:
        sys.exit("some stored outputs are stale: run those notebooks, `nbdev_clean`, and commit")


if __name__ == "__main__":
    main()
