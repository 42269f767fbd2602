"""What `make docs` runs: stage the sources in _build/source, build _build/html without warnings, darken, check links."""
from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.metadata import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gallery import add_dark_pictures, expand_galleries, pictures_of, stack_hero

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SOURCE, HTML = BUILD / "source", BUILD / "html"


def stage_notebook(path: Path, to: Path) -> None:
    """A copy without nbdev's directives: hidden cells go, `echo: false` hides the input, `fig-alt` describes the picture."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not re.search(r"^#\|\s*(hide|default_exp)\b", cell.source, re.M)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            stage_code(cell)
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, to)


def stage_code(cell: NotebookNode) -> None:
    tags = []
    if re.search(r"^#\|\s*echo:\s*false", cell.source, re.M):
        tags.append("remove-input")
    elif re.search(r"^#\|\s*export", cell.source, re.M) and re.match(r"(#\|.*\n)*\s*from __future__", cell.source):
        tags.append("hide-input")  # the imports of a module: there for who asks
    described = re.search(r"^#\|\s*fig-alt:\s*(.+)$", cell.source, re.M)
    if described:
        cell.metadata["mystnb"] = {"image": {"alt": described[1].strip()}}
    pictures = pictures_of(cell)
    # A wide picture, or a plot that is not high, keeps a width on a phone, and scrolls: its letters would be dust.
    width, height = (pictures[0].width, pictures[0].height) if pictures else (0, 1)
    if width > 1.8 * height or (width >= 600 and width > 1.3 * height):
        cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["classes"] = "wide"
    cell.metadata["tags"] = tags
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
    cell.source = re.sub(r"^%.*\n?", "", cell.source, flags=re.M).strip()
    if not cell.source and not cell.outputs:
        cell.metadata["tags"] = ["remove-cell"]


def stage() -> None:
    """The pages with their galleries, the notebooks, the landing page's code and picture, and MathJax."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("__pycache__"))
    for page in sorted(SOURCE.rglob("*.md")):
        expand_galleries(page, ROOT, SOURCE)
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            stage_notebook(path, SOURCE / "notebooks" / path.relative_to(ROOT / "nbs"))
    shutil.copytree(ROOT / "index_files", SOURCE / "_static" / "index_files")
    stack_hero(SOURCE / "index.md", SOURCE)
    list_modules(SOURCE / "api" / "index.md")
    shutil.copy(ROOT / "CHANGELOG.md", SOURCE / "changelog.md")
    shutil.copy(ROOT / "entropy_captum" / "weights" / "rooftop_unet.md", SOURCE / "model_card.md")
    stage_readme_parts(nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4))
    script = next(file for file in files("sphinx-mathjax-offline") or () if file.name == "tex-svg.js").locate()
    (SOURCE / "_static" / "mathjax").mkdir()
    shutil.copy(script, SOURCE / "_static" / "mathjax" / "tex-svg.js")


def stage_readme_parts(index: NotebookNode) -> None:
    """What the landing page shows of the README: its example with what that prints, and its comparison with other tools."""
    shown = [c for c in index.cells if c.cell_type == "code" and not re.search(r"^#\|\s*(echo|hide|timed|notest)", c.source, re.M)]
    blocks = []
    for cell in shown:
        code = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
        blocks.append(f"```{{code-block}} python\n:class: landing\n\n{code}\n```")
        said = [output["text"].rstrip() for output in cell.outputs if output.get("name") == "stdout"]
        blocks += [f"```{{code-block}} text\n:class: said\n\n{text}\n```" for text in said]
    (SOURCE / "_example.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    told = "\n".join(cell.source for cell in index.cells if cell.cell_type == "markdown")
    table = re.search(r"^## Compared with other tools\n.*?(^\|.*?)\n\n", told, re.M | re.S)
    assert table is not None, "the README compares with other tools"
    (SOURCE / "_compared.md").write_text(f"{table[1]}\n", encoding="utf-8")


def list_modules(page: Path) -> None:
    """In the staged page, the block `modules`, their names, as links with the first line of each, and as hidden contents."""
    def expand(block: re.Match[str]) -> str:
        names = block[1].split()
        about = {name: ast.get_docstring(ast.parse((ROOT / "entropy_captum" / f"{name}.py").read_text("utf-8"))) for name in names}
        listed = "\n".join(f"- [{name}]({name}.md): {about[name]}" for name in names)
        return f"{listed}\n\n```{{toctree}}\n:hidden:\n\n{chr(10).join(names)}\n```"

    page.write_text(re.sub(r"```\{modules\}\n(.*?)\n```", expand, page.read_text("utf-8"), flags=re.S), encoding="utf-8")


#: Elements without an end, and those whose text may hold a dollar: code, and what is no text. Formulas have a class.
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "path", "source", "wbr"}
NO_PROSE = {"code", "pre", "script", "style", "svg", "math"}


class Links(HTMLParser):
    """Collects what a page points to, the anchors it has, and the texts in which a formula was not recognised."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.undescribed: list[str] = []
        self.open: list[tuple[str, bool]] = []
        self.dollars: list[str] = []

    def handle_data(self, text: str) -> None:
        if "$" in text and not any(no_prose for _, no_prose in self.open):
            self.dollars.append(" ".join(text.split())[-60:])

    def handle_endtag(self, tag: str) -> None:
        names = [name for name, _ in self.open]
        if tag in names:
            del self.open[len(names) - 1 - names[::-1].index(tag):]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag not in VOID:
            self.open.append((tag, tag in NO_PROSE or "math" in (found.get("class") or "").split()))
        self.links += [found[key] or "" for key in ("href", "src") if key in found]
        self.anchors |= {found[key] or "" for key in ("id", "name") if key in found}
        # Sphinx puts the file's name where nothing is said.
        if tag == "img" and not re.search(r"\w \w", found.get("alt") or ""):
            self.undescribed.append((found.get("src") or "")[:80])


def read_links(page: Path) -> Links:
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def broken_links(html: Path) -> list[str]:
    """Internal links without a target, pictures without a description, and formulas that show their dollars."""
    pages = {page: read_links(page) for page in html.rglob("*.html")}
    found = []
    for page, parsed in pages.items():
        name = page.relative_to(html)
        found += [f"{name}: a picture without alternative text: {src}" for src in parsed.undescribed]
        found += [f"{name}: a dollar sign in prose; a displayed formula needs a blank line before it: {text}"
                  for text in parsed.dollars]
        for link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
            anchors = pages[target].anchors if target in pages else None
            missing = parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors
            if not target.exists() or missing:
                found.append(f"{name}: {link}")
    return sorted(set(found))


def main() -> None:
    stage()
    environment = os.environ | {"ENTROPY_CAPTUM_ROOT": str(ROOT)}
    # -E: everything anew, for a saved environment does not notice a change of docs/conf.py's hooks.
    command = [sys.executable, "-m", "sphinx", "-E", "-q", "-W", "--keep-going", "-b", "html", "-d", str(BUILD / "doctrees"),
               str(SOURCE), str(HTML)]
    shutil.rmtree(HTML, ignore_errors=True)
    if subprocess.run(command, env=environment).returncode:
        sys.exit("the site was not built without warnings")
    add_dark_pictures(HTML)
    broken = broken_links(HTML)
    if broken:
        sys.exit("broken:\n  " + "\n  ".join(broken))
    print(f"the site: {HTML / 'index.html'}")


if __name__ == "__main__":
    main()
