"""The site's pictures: the cards of section pages with thumbnails, the landing page's one for a phone, copies for the dark."""
from __future__ import annotations

import base64
import html
import io
import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

from entropy_captum.figures import dark_copy, embedded, in_the_dark, on_white


def pictures_of(cell: NotebookNode) -> list[Image.Image]:
    """What a cell shows as pixels."""
    data = [output["data"] for output in cell.get("outputs", []) if "data" in output]
    found = [one[kind] for one in data for kind in ("image/png", "image/jpeg") if kind in one]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def is_tall_plot(picture: Image.Image) -> bool:
    """Whether a card would cut off the titles of a picture's axes above and below."""
    return picture.width < 1.88 * picture.height and in_the_dark(picture) is not None


def telling(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook whose output may stand on its card: the one that says `#| card`, or else all."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and not re.search(r"^#\|\s*hide", cell.source, re.M)]
    return [cell for cell in cells if re.search(r"^#\|\s*card\b", cell.source, re.M)] or cells


def first_text(cells: list[NotebookNode]) -> str:
    """The first lines that cells show, of those that show at least three, else what shows most, below the line that shows it."""
    shown = [(cell, output.get("text") or output.get("data", {}).get("text/plain", ""))
             for cell in cells for output in cell.get("outputs", [])]
    long = [text for _, text in shown if text.count("\n") >= 2]
    cell, most = max(shown, key=lambda one: len(one[1]), default=(None, ""))
    chosen = long[0] if long else f"{cell.source.rstrip().splitlines()[-1]}\n{most}" if cell else ""
    return "\n".join(line[:60] for line in chosen.splitlines()[:9])


def card(name: str, root: Path, source: Path) -> str:
    """A page of a section as a link: its title, what its first lines say of it, and its first picture, or else its first output."""
    path = root / "nbs" / f"{name.removeprefix('notebooks/')}.ipynb"
    if path.is_file():
        notebook = nbformat.read(path, as_version=4)
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        cells = telling(notebook)
        pictures = [picture for cell in cells for picture in pictures_of(cell)]
        words = first_text(cells)
    else:
        text = (root / "docs" / f"{name}.md").read_text(encoding="utf-8")
        linked, blocks = re.search(r"^!\[[^]]*\]\(([^)]+)\)", text, re.M), re.search(r"^```\w+\n(.*?)^```", text, re.M | re.S)
        pictures = [Image.open((root / "docs" / name).parent / linked[1])] if linked else []
        words = blocks[1] if blocks else ""
    title, about = re.search(r"^# (.+)$", text, re.M), re.search(r"^(?:> )?(?![#>`!{:|<-])(\S.+(?:\n(?:> )?\S.*)*)", text, re.M)
    kind = ' class="whole"' if pictures and is_tall_plot(pictures[0]) else ""
    head = f"<pre>{html.escape(words)}</pre>" if not pictures else (
        f'<img{kind} src="_static/thumbs/{thumbnail(pictures[0], name, source)}" alt="first picture of the page" loading="lazy">')
    return (f'<a class="page-card" href="{name}.html"><span class="thumb" aria-hidden="true">{head}</span>'
            f"<strong>{plain(title[1] if title else name)}</strong> <span>{plain(about[1] if about else '')}</span></a>")


def plain(markdown: str) -> str:
    """Inline Markdown as HTML without links: what stands in a card is itself one."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"\n(> ?)?", " ", markdown))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\$([^$]+)\$", r"<i>\1</i>", re.sub(r"\*\*?([^*]+)\*\*?", r"\1", text))


def thumbnail(picture: Image.Image, name: str, source: Path) -> str:
    """A small copy of a picture, white where it is transparent; its left part where it is wide."""
    whole = on_white(picture)
    whole.thumbnail((10_000, 300))
    file = source / "_static" / "thumbs" / f"{name.replace('/', '-')}.jpg"
    file.parent.mkdir(exist_ok=True)
    whole.save(file, quality=80)
    return file.name


def expand_galleries(page: Path, root: Path, source: Path) -> None:
    """In a page of the staged sources, each block `gallery`, names of pages, as cards, and as a hidden table of contents."""
    def expand(block: re.Match[str]) -> str:
        names = block[1].split()
        base = "../" * (len(page.relative_to(source).parts) - 1)
        cards = re.sub(r'(href|src)="', rf'\1="{base}', "\n".join(card(name, root, source) for name in names))
        listed = "\n".join(f"/{name}" for name in names)
        return f'```{{raw}} html\n<div class="gallery">\n{cards}\n</div>\n```\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```'

    text = page.read_text(encoding="utf-8")
    if "```{gallery}" in text:
        page.write_text(re.sub(r"```\{gallery\}\n(.*?)\n```", expand, text, flags=re.S), encoding="utf-8")


def runs(blank: np.ndarray, gap: int = 1) -> list[tuple[int, int]]:
    """From where to where something is drawn, by which rows or columns are blank; what lies closer than `gap` is one."""
    found: list[tuple[int, int]] = []
    for k in np.flatnonzero(~blank):
        if found and k - found[-1][1] < gap:
            found[-1] = found[-1][0], int(k) + 1
        else:
            found.append((int(k), int(k) + 1))
    return found


def stacked(picture: Image.Image) -> Image.Image | None:
    """A row of panels as a column, with the legend below it an entry a line; None where there is nothing to cut."""
    white = np.asarray(picture.convert("L")) > 232  # a JPEG is never quite white beside an edge
    *above, last = runs(white.all(1), 8)
    foot = last[0] - 2 if above and last[1] - last[0] < picture.height / 8 else picture.height  # where a legend begins
    panels = runs(white[:foot].all(0))
    cuts = [a - 1 for a, b in panels if b - a > picture.width / 6 and a > picture.width / 6]
    if not cuts:
        return None
    parts = [picture.crop((a, 0, b, foot)) for a, b in pairwise([0, *cuts, picture.width])]
    parts += [picture.crop((max(a - 8, 0), foot, b + 2, picture.height)) for a, b in runs(white[foot:].all(0), 18)]
    column = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    for k, part in enumerate(parts):
        column.paste(part, (0, sum(each.height for each in parts[:k])))
    return column


def stack_hero(page: Path, source: Path) -> None:
    """The landing page's picture, with another for narrow screens, on which its panels lie one below the other."""
    def replace(found: re.Match[str]) -> str:
        alt, file = found[1], source / found[2]
        column = stacked(Image.open(file).convert("RGB"))
        if column is None:
            return found[0]
        tall = file.with_name(f"{file.stem}-tall.jpg")
        column.save(tall, quality=90)
        narrow = f'<source media="(max-width: 47.99em)" srcset="{tall.relative_to(source).as_posix()}">'
        picture = f'<picture>{narrow}<img class="hero" src="{found[2]}" alt="{html.escape(alt)}"></picture>'
        return f"```{{raw}} html\n{picture}\n```"

    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"^!\[([^]]*)\]\(([^)]+)\)\{\.hero\}$", replace, text, flags=re.M), encoding="utf-8")


def dark_source(source: str, page: Path) -> str:
    """Where the copy for the dark of a picture of a page is, made where there is none; the picture itself where it can stay."""
    if source.startswith("data:"):
        dark = dark_copy(base64.b64decode(source.partition(",")[2]))
        return source if dark is None else embedded(dark)
    path = Path(unquote(urlsplit(source).path))
    copy = path.with_name(f"{path.stem}-dark{path.suffix}")
    if not (page.parent / copy).exists():
        dark = dark_copy((page.parent / path).read_bytes())
        if dark is None:
            return source
        (page.parent / copy).write_bytes(dark)
    return quote(copy.as_posix())


def in_both(found: re.Match[str], page: Path) -> str:
    """A picture of a page twice, by Furo's classes: as it is, and its copy for the dark, which is read only where it is shown."""
    element = found[0]
    dark = re.sub(r'\b(src|srcset)="([^"]+)"', lambda one: f'{one[1]}="{dark_source(one[2], page)}"', element)
    if dark == element:
        return element
    dark = re.sub(r"<img(?![^>]*\bloading=)", '<img loading="lazy"', re.sub(r'\bid="[^"]*" ?', "", dark))
    return of_class(element, "only-light") + of_class(dark, "only-dark")


def of_class(element: str, name: str) -> str:
    """An HTML element with one class more."""
    head, _, rest = element.partition(">")
    if ' class="' in head:
        return element.replace(' class="', f' class="{name} ', 1)
    return re.sub(r"^<\w+", rf'\g<0> class="{name}"', head) + ">" + rest


#: A picture in a page, and not a vector drawing.
PICTURE = re.compile(r'<picture>.*?</picture>|<img\b[^>]*\bsrc="(?!https?:|data:image/svg|[^"]*\.svg)[^"]*"[^>]*>', re.S)


def add_dark_pictures(site: Path) -> None:
    """In each page of the built site."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = PICTURE.sub(partial(in_both, page=page), text)
        if found != text:
            page.write_text(found, encoding="utf-8")
