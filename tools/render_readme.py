"""README.md from nbs/index.ipynb.  --check: only say whether it is in sync."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

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
    for text in descriptions:
        body = re.sub(r"!\[(png|jpeg)\]", f"![{text}]", body, count=1)
    body = NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    return {ROOT / "README.md": body.encode()} | {ROOT / k: v for k, v in resources["outputs"].items()}


def main() -> None:
    files = render()
    if "--check" in sys.argv:
        differing = [p.name for p, content in files.items() if not p.exists() or p.read_bytes() != content]
        if differing:
            sys.exit(f"out of sync with nbs/index.ipynb (run make readme): {', '.join(differing)}")
        return
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
