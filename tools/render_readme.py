"""README.md from nbs/index.ipynb.  --check: only say whether it is in sync."""
from __future__ import annotations

import html
import io
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbconvert import MarkdownExporter
from PIL import Image
from traitlets.config import Config

from entropy_captum.figures import dark_copy

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: do not edit. -->\n\n"


def render() -> dict[Path, bytes]:
    """The README and its pictures, by path."""
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    # nbdev_clean takes the language away, and without it nbconvert fences code as no language.
    notebook.metadata.language_info = {"name": "python"}
    descriptions: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and re.search(r"^#\|\s*echo:\s*false", cell.source, re.M):
            cell.metadata.tags = ["echo-off"]
        descriptions += re.findall(r"^#\|\s*fig-alt:\s*(.+)$", cell.source, re.M) if cell.cell_type == "code" else []
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        # Links between notebooks are right inside nbs/; from the README they need the folder.
        cell.source = re.sub(r"\]\((?!https?:)([^)\s]+\.ipynb)\)", r"](nbs/\1)", cell.source)
    config = Config()
    config.TagRemovePreprocessor.remove_input_tags = {"echo-off"}
    config.TagRemovePreprocessor.remove_cell_tags = {"lab"}  # what only JupyterLab can show
    config.TagRemovePreprocessor.enabled = True
    config.TemplateExporter.exclude_input_prompt = config.TemplateExporter.exclude_output_prompt = True
    body, resources = MarkdownExporter(config=config).from_notebook_node(
        notebook, {"output_files_dir": "index_files", "unique_key": "index"})
    pictures = dict(resources["outputs"])
    for text, (name, data) in zip(descriptions, resources["outputs"].items(), strict=True):
        shown, (stem, _, ending) = f'<img alt="{html.escape(text)}" src="{name}">', name.rpartition(".")
        if (dark := dark_copy(data)) is not None:
            pictures[f"{stem}-dark.{ending}"] = dark
            source = f'<source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.{ending}">'
            shown = f"<picture>\n  {source}\n  {shown}\n</picture>"
        body = re.sub(r" *\n!\[(png|jpeg)\]\([^)]*\)\n *", lambda _, shown=shown: f"\n{shown}\n", body, count=1)
    body = NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    return {ROOT / "README.md": body.encode()} | {ROOT / k: v for k, v in pictures.items()}


def same(one: bytes, other: bytes) -> bool:
    """Whether two files are equal, or nearly so as pictures, also in each square of 8: encoders round in their own ways."""
    if one == other or not one.startswith(b"\xff\xd8"):
        return one == other
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in (one, other))
    if a.shape != b.shape:
        return False
    away = np.abs(a - b).mean(-1)
    rows, columns = (n // 8 * 8 for n in away.shape)
    squares = away[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8).mean((1, 3))
    return bool(away.mean() < 1 and squares.max() < 20)


def main() -> None:
    files = render()
    if "--check" in sys.argv:
        differing = [p.name for p, content in files.items() if not (p.exists() and same(p.read_bytes(), content))]
        if differing:
            sys.exit(f"out of sync with nbs/index.ipynb (run make readme): {', '.join(differing)}")
        return
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
