"""The documentation site in a real browser."""
from __future__ import annotations

import http.server
import importlib
import inspect
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import FunctionType

import nbformat
import numpy as np
import pytest
from browser import Watched, open_browser
from bs4 import BeautifulSoup
from conftest import load_tool
from PIL import Image

pytestmark = pytest.mark.site
ROOT = Path(__file__).resolve().parent.parent
# One of each kind: landing page, notebook, guide, API, prose with tables, section.
KINDS = ("index.html", "notebooks/24_attribution.html", "notebooks/guides/features.html", "api/attribution.html",
         "start/install.html", "guides.html")

# By how much a page is wider than its window. On a phone Furo lets the column scroll, so the document alone tells nothing.
EXCESS = """async () => {
    await window.MathJax?.startup?.promise;
    const boxes = [document.documentElement, ...document.querySelectorAll('.content')];
    return Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));
}"""

# The texts whose contrast is below 4.5 (WCAG 2, AA).
FAINT = """() => {
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, alpha = 1], below) => [r, g, b].map((v, k) => alpha * v + (1 - alpha) * below[k]);
    const behind = part =>
        part ? over(channels(getComputedStyle(part).backgroundColor), behind(part.parentElement)) : [255, 255, 255];
    const linear = v => v <= 10.31 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (texts.nextNode()) {
        const text = texts.currentNode.data.trim(), part = texts.currentNode.parentElement;
        if (!text || !part.checkVisibility({visibilityProperty: true})) continue;
        const back = behind(part), both = [luminance(over(channels(getComputedStyle(part).color), back)), luminance(back)];
        const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (contrast < 4.5) found.push([text, contrast]);
    }
    return found;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def html() -> Path:
    """The folder of the site, built with warnings as errors and every internal link checked. Needs no browser."""
    built = subprocess.run([sys.executable, "tools/docs.py"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def site(html):
    """The address of the site."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def watched(browser, site):
    found = Watched(browser, site, viewport={"width": 1280, "height": 900})
    yield found
    found.page.close()
    assert not found.wrong


def test_the_site_is_built_with_a_page_for_every_notebook(html):
    notebooks = {path.relative_to(ROOT / "nbs").with_suffix(".html") for path in (ROOT / "nbs").rglob("*.ipynb")
                 if ".ipynb_checkpoints" not in path.parts}
    assert len(notebooks) > 40 and all((html / "notebooks" / path).is_file() for path in notebooks)


@pytest.mark.browser
def test_the_landing_page_shows_picture_and_commands_within_one_screen(watched, site):
    page = watched.page
    page.goto(f"{site}/index.html")
    assert page.evaluate("document.querySelector('article img').naturalWidth") > 400
    code = page.locator("article div.highlight")
    assert "pip install" in code.first.inner_text() and "score-cam" in code.nth(1).inner_text()
    assert "EntropyCentric" in code.nth(2).inner_text()
    assert code.first.bounding_box()["y"] + code.first.bounding_box()["height"] <= 900


@pytest.mark.browser
def test_a_notebook_page_has_its_equations_and_figures(watched, site):
    page = watched.page
    page.goto(f"{site}/notebooks/24_attribution.html")
    page.wait_for_selector("mjx-container svg")
    assert not page.locator("article >> text=/\\\\frac|\\\\sum/").count()
    assert page.evaluate("[...document.querySelectorAll('article img')].map(i => i.naturalWidth > 100 && i.alt.length > 10)"
                         ).count(True) >= 3
    assert "#|" not in page.locator("article").inner_text()


@pytest.mark.browser
def test_the_search_finds_h_sit(watched, site):
    page = watched.page
    page.goto(f"{site}/search.html?q=h_sit")
    page.wait_for_selector("#search-results li a")
    links = page.eval_on_selector_all("#search-results li a", "found => found.map(a => a.href)")
    assert any("api/evaluation.html" in link for link in links), links


@pytest.mark.browser
@pytest.mark.parametrize("width", (390, 1280))
def test_no_page_scrolls_sideways(browser, site, html, width):
    """On a phone and on a desktop. What is wider than the column, code and tables, scrolls in itself."""
    seen = Watched(browser, site, viewport={"width": width, "height": 844})
    excess = {}
    for path in sorted(html.rglob("*.html")):
        name = path.relative_to(html).as_posix()
        seen.page.goto(f"{site}/{name}")
        excess[name] = seen.page.evaluate(EXCESS)
    seen.page.close()
    assert len(excess) > 90 and {name: wide for name, wide in excess.items() if wide > 0} == {}
    assert not seen.wrong


@pytest.mark.browser
def test_the_longest_line_of_code_fits_a_desktop_and_a_longer_one_scrolls(browser, site):
    """132 characters, in a cell and under *The imports*, on a screen of 1280 px with a scroll bar of 15."""
    page = browser.new_page(viewport={"width": 1265, "height": 900})
    page.goto(f"{site}/notebooks/24_attribution.html")
    page.locator("summary").first.click()
    excess = {length: page.evaluate("""length => ['.cell > .cell_input pre', 'details .cell_input pre'].map(place => {
        const block = document.querySelector(place);
        block.textContent = 'x'.repeat(length);
        return block.scrollWidth - block.clientWidth;
    })""", length) for length in (132, 200)}
    assert excess[132] == [0, 0] and min(excess[200]) > 0 and page.evaluate(EXCESS) <= 0
    assert page.evaluate("getComputedStyle(document.querySelector('.cell_input pre')).overflowX") == "auto"
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ("dark", "light"))
def test_text_is_legible(browser, site, scheme):
    """No faint text, no name in code underlined like a link, and figures, which are drawn for white, stand on white."""
    page = browser.new_page(color_scheme=scheme)
    for name in KINDS:
        page.goto(f"{site}/{name}")
        assert not page.evaluate(FAINT), name
        assert not page.evaluate("""[...document.querySelectorAll('.highlight span')].map(
            part => [part.textContent, getComputedStyle(part).textDecorationLine]).filter(([, line]) => line != 'none')"""), name
        backgrounds = page.evaluate("[...document.querySelectorAll('.cell_output img, .hero')].map("
                                    "image => getComputedStyle(image).backgroundColor)")
        assert set(backgrounds) <= {"rgb(255, 255, 255)", "rgb(25, 25, 25)"}, name  # the second is of copies for the dark
    page.close()


#: How light the corner of each picture that is shown is, 0 to 255, and whether its corners are round.
CORNERS = """async () => Promise.all([...document.querySelectorAll('article img')].filter(one => one.checkVisibility()).map(
    async image => {
    image.loading = 'eager';
    await image.decode();
    const [canvas, style] = [document.createElement('canvas'), getComputedStyle(image)];
    canvas.getContext('2d').drawImage(image, 0, 0);
    const pixel = canvas.getContext('2d').getImageData(1, 1, 1, 1).data;
    return [Math.max(...pixel.slice(0, 3)) * pixel[3] / 255 + 255 - pixel[3], style.borderRadius, style.backgroundColor];
}))"""


@pytest.mark.browser
def test_figures_are_no_white_slab_in_the_dark(browser, site):
    """Drawn for white, they have a card with round corners; in the dark their paper is dark. Photographs stay as they are."""
    names = ("index.html", "guides.html", "start/explorer.html", "notebooks/paper/ones_wins.html", "notebooks/guides/features.html",
             "paper.html", "notebooks/19_figures.html", "notebooks/20_estimate.html")
    seen = {}
    for scheme in ("dark", "light"):
        page = browser.new_page(color_scheme=scheme)
        for name in names:
            page.goto(f"{site}/{name}")
            seen[name, scheme] = page.evaluate(CORNERS)
            assert all(radius == "8px" for _, radius, _ in seen[name, scheme]) or name in ("guides.html", "paper.html"), name
        page.close()
    for name in names:
        dark, light = seen[name, "dark"], seen[name, "light"]
        assert dark and len(dark) == len(light), name
        for (in_dark, _, paper), (in_light, _, white) in zip(dark, light, strict=True):
            assert in_dark == in_light < 232 or (in_dark < 45 and in_light > 232 and paper == "rgb(25, 25, 25)"), name
            assert white == "rgb(255, 255, 255)", name


@pytest.mark.browser
def test_on_a_phone_the_first_picture_stacks_and_wide_ones_scroll(browser, site):
    for scheme, ending in (("light", ""), ("dark", "-dark")):
        seen = {}
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            page.goto(f"{site}/index.html")
            hero = page.locator(".hero:visible")
            hero.evaluate("image => image.decode()")
            box = hero.bounding_box()
            seen[width] = box["height"] / box["width"], hero.evaluate("image => image.currentSrc")
            page.goto(f"{site}/notebooks/guides/features.html")
            assert page.evaluate(EXCESS) <= 0
            page.evaluate("""() => Promise.all([...document.querySelectorAll('article img.wide')]
                .filter(image => image.checkVisibility()).map(image => { image.loading = 'eager'; return image.decode(); }))""")
            widths = page.evaluate("[...document.querySelectorAll('article img.wide')].filter(image => image.checkVisibility())"
                                   ".map(image => image.clientWidth)")
            assert widths and min(widths) >= 600
            page.close()
        assert seen[390][0] > 1 > seen[1280][0]
        assert seen[390][1].endswith(f"-tall{ending}.jpg") and seen[1280][1].endswith(f"_0{ending}.jpg")


@pytest.mark.browser
def test_a_button_copies_each_block_of_code_and_no_output(browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    for name in ("start/install.html", "notebooks/guides/features.html"):
        page.goto(f"{site}/{name}")
        blocks = page.locator("article div.highlight:not(.cell_output *)")
        assert blocks.count() == page.locator(".copy").count() > 1 and not page.locator(".cell_output .copy").count()
        blocks.first.hover()
        button = blocks.first.locator(".copy")
        button.click()
        page.wait_for_function("document.querySelector('.copy').textContent == 'Copied'")
        assert page.evaluate("navigator.clipboard.readText()") == blocks.first.locator("pre").inner_text().rstrip("\n")
        assert page.evaluate("getComputedStyle(document.querySelectorAll('.copy')[1]).opacity") == "0"
    prompt = page.locator("article div.highlight pre").first
    prompt.evaluate("block => block.textContent = '$ make demo\\nit runs\\n$ make test\\n'")
    prompt.hover()
    page.locator(".copy").first.click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text == 'make demo\\nmake test')")
    context.close()


@pytest.mark.browser
def test_dark_and_light(browser, site):
    colors = set()
    for scheme in ("dark", "light"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(f"{site}/index.html")
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(colors) == 2


def public_names() -> list[str]:
    """All that the modules export, and the public methods and properties of their classes."""
    found = []
    for module in sorted(path.stem for path in (ROOT / "entropy_captum").glob("[a-z]*.py")):
        exported = importlib.import_module(f"entropy_captum.{module}")
        for name in exported.__all__:
            value, path = getattr(exported, name), f"{exported.__name__}.{name}"
            found.append(path)
            if inspect.isclass(value) and value.__module__ == exported.__name__:
                found += [f"{path}.{key}" for key, member in vars(value).items()
                          if not key.startswith("_") and isinstance(member, (FunctionType, classmethod, property))]
    return found


def test_every_public_name_has_a_described_entry(html):
    pages = [path.read_text() for path in (html / "api").glob("*.html")]
    entry = re.compile(r'<dt[^>]* id="([\w.]+)">.*?</dt>\s*<dd>(?=(.{0,9}))', re.S)
    described = {name for page in pages for name, text in entry.findall(page) if text.startswith("<p>")}
    names = public_names()
    assert len(names) > 300 and not set(names) - described
    assert {f"entropy_captum.attribution.{name}.attribute" for name in ("EntropyCentric", "SobolTotal")} <= described


def without_code(page: str) -> str:
    """The text of a page but for code and formulas."""
    soup = BeautifulSoup(page, "html.parser")
    for part in soup.select("code, pre, script, style, .math"):
        part.decompose()
    return soup.get_text(" ")


def test_no_page_shows_the_dollars_of_a_formula(html):
    texts = {path.relative_to(html).as_posix(): without_code(path.read_text()) for path in html.rglob("*.html")}
    assert {name: text[text.index("$") - 60:][:120] for name, text in texts.items() if "$" in text} == {}


def test_the_build_finds_a_formula_that_was_not_recognised(tmp_path):
    docs = load_tool("docs")
    (tmp_path / "a.html").write_text('<p>it is<br>$<code>$x$</code> <span class="math">\\($y$\\)</span></p>'
                                     '<pre><i>$ make</i></pre>')
    (tmp_path / "b.html").write_text('<p><img src="a.html" alt="two words">fine <code>$HOME</code></p>')
    found = docs.broken_links(tmp_path)
    assert len(found) == 1 and found[0].startswith("a.html: a dollar sign in prose"), found
    assert "$" in without_code((tmp_path / "a.html").read_text()) and "$" not in without_code((tmp_path / "b.html").read_text())


def test_section_pages_say_what_is_in_them_and_for_whom(html):
    """Every notebook is on one of them, with its title, a sentence, and a picture or what it prints first."""
    listed = []
    for name in ("guides.html", "how.html", "paper.html", "start/index.html"):
        page = BeautifulSoup((html / name).read_text(), "html.parser")
        galleries = page.select("article .gallery")
        for gallery in galleries:
            assert gallery.find_previous("p").get_text().startswith("For "), gallery.get_text()[:80]
        for card in page.select("a.page-card"):
            title, about = card.select_one("strong").get_text(), card.select("span")[-1].get_text()
            picture, text = card.select_one(".thumb img"), card.select_one(".thumb pre")
            assert len(title) > 3 and len(about) > 20 and "$" not in about and "](" not in about, card
            assert (html / name).parent.joinpath(picture["src"]).is_file() if picture else text.get_text().count("\n") >= 1, title
            listed.append((html / name).parent.joinpath(card["href"]).resolve().relative_to(html.resolve()).as_posix())
    paths = [path.relative_to(ROOT / "nbs").with_suffix(".html").as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
             if ".ipynb_checkpoints" not in path.parts]
    notebooks = {f"notebooks/{path}" for path in paths}
    assert notebooks <= set(listed) and len(listed) == len(set(listed)), sorted(notebooks - set(listed))


def test_thumbnails_are_made_of_the_pages_own_pictures(html):
    gallery = load_tool("gallery")
    notebook = nbformat.read(ROOT / "nbs/guides/features.ipynb", as_version=4)
    own = next(picture for cell in notebook.cells for picture in gallery.pictures_of(cell)).convert("RGB")
    small = Image.open(html / "_static/thumbs/notebooks-guides-features.jpg")
    assert small.height <= 300 and np.abs(np.asarray(own.resize(small.size), float) - np.asarray(small, float)).mean() < 8
    assert not list((ROOT / "docs").rglob("thumbs"))


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_a_row_of_panels_becomes_a_column(panels):
    row = np.full((60, 10 + 90 * panels, 3), 255, np.uint8)
    for k in range(panels):
        row[10:50, 10 + 90 * k:70 + 90 * k] = 40 * k
        row[20:40, 75 + 90 * k:80 + 90 * k] = 200  # a colour bar stays with its panel
    column = load_tool("gallery").stacked(Image.fromarray(row))
    if panels == 1:
        assert column is None
        return
    values = np.asarray(column)
    assert len(values) == 60 * panels
    for k in range(panels):
        part = values[60 * k:60 * (k + 1)]
        assert (part == 40 * k).all(2).sum() >= 2400 and (part == 200).all(2).sum() >= 100


def test_api_pages_begin_with_what_a_user_calls(html):
    first = {"attribution": "EntropyCentric", "estimate": "Estimate", "region": "RegionScore", "zoo": "rooftop_unet",
             "cam": "LayerScoreCam", "explorer": "explore", "models": "load_model", "study": "evaluate", "scene": "Scene",
             "training": "train", "figures": "explanation_figure", "drawn": "procedural_scene", "report": "write_report",
             "cli": "explain", "footprints": "read_footprints", "measures": "measure_map", "capture": "captured",
             "sampling": "PickFreeze", "scene_view": "SceneSubject", "signs": "inspect_model", "survey": "survey",
             "predicted": "find_objects", "planted": "plant", "files": "read_image", "hub": "load_folder",
             "adaptive": "Goal", "interactions": "interactions", "workers": "run_on", "explanation": "ask"}
    found = {}
    for path in (html / "api").glob("*.html"):
        entries = re.findall(r'<dt[^>]* id="entropy_captum\.\w+\.(\w+)">', path.read_text())
        found |= {path.stem: entries[0]} if entries else {}
    assert {name: found[name] for name in first} == first
    # No page begins with a constant where there is something to call.
    for name, entry in found.items():
        module = importlib.import_module(f"entropy_captum.{name}")
        named = {each: getattr(module, each) for each in module.__all__}
        calls = [each for each, value in named.items() if inspect.isclass(value) or inspect.isfunction(value)]
        assert entry in calls or not calls or name == "names", (name, entry)


def test_a_broken_link_and_an_undescribed_picture_are_found(tmp_path):
    docs = load_tool("docs")
    (tmp_path / "a.html").write_text('<a href="b.html">b</a> <a href="a.html#there">c</a> <a id="here" href="#here"></a>'
                                     '<a href="https://example.org/x"></a><img src="a.html" alt="">')
    broken = docs.broken_links(tmp_path)
    assert len(broken) == 3 and "b.html" in broken[2] and "#there" in broken[1] and "alternative text" in broken[0], broken


def test_the_api_pages_show_no_python_internals(html):
    """No addresses, which change with every build, no reprs of functions, nothing that every tuple has."""
    internals = re.compile(r"0x[0-9a-f]{6,}|object at |&lt;(function|factory|built-in|class)|PosixPath|Alias for field|"
                           r"occurrences of value")
    pages = {path.name: re.sub(r"<[^>]+>", "", path.read_text()) for path in (html / "api").glob("*.html")}
    assert len(pages) > 20 and not {name: found[0] for name, text in pages.items() if (found := internals.search(text))}
