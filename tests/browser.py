"""A real browser for tests, what it asked for, and a JupyterLab of its own."""
from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pytest

from entropy_captum.drawn import procedural_scene

# In a container there is no user namespace to put a sandbox in; the rest keeps the browser from calling home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


def find_chromium() -> str:
    """The path of Chromium or Chrome; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium on this machine: browser tests are skipped (Debian: apt-get install chromium)")


@contextmanager
def open_browser() -> Iterator:
    """A Chromium under Playwright."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def check_by_axe(page, part: str = "html") -> None:
    """The rules of axe-core for a part of a page, by its selector; axe itself asks for nothing."""
    from axe_playwright_python.base import AXE_SCRIPT  # of the dev extra, as Playwright: it is never skipped
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate(
        "async part => (await axe.run(part)).violations.map(({ id, nodes }) => [id, nodes[0].html])", part)
    assert found == []


def check_page(path: Path) -> None:
    """A page in a file, at two widths, in the light and in the dark: nothing is cut off, and axe finds nothing wrong."""
    with open_browser() as browser:
        for width, scheme in product((1280, 390), ("light", "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(f"file://{path}")
            size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert size[0] <= size[1], (width, scheme, size)
            check_by_axe(page)


class Watched:
    """A page and everything that went wrong on it: console errors, failed and foreign requests."""

    def __init__(self, browser, home: str, **options) -> None:
        self.page = browser.new_page(**options)
        self.home, self.wrong = home, []
        self.page.on("console", lambda m: m.type == "error" and self.wrong.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.wrong.append(f"error: {e}"))
        # Aborted is what was under way when the page was left for the next.
        self.page.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and self.wrong.append(f"failed: {r.url}"))
        self.page.on("response", lambda r: r.status >= 400 and self.wrong.append(f"{r.status}: {r.url}"))
        self.page.on("request", lambda r: self.foreign(r.url) and self.wrong.append(f"foreign: {r.url}"))

    def foreign(self, url: str) -> bool:
        return not url.startswith((self.home, self.home.replace("http", "ws", 1), "data:", "blob:"))


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Until a server answers. Fails with its log if it ends before, or never answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail(f"{url} does not answer:\n{log.read_text()[-3000:]}")


#: What each application is told: whether news and updates are looked for, and that tests may talk to it.
OPTIONS = {"jupyterlab": ["--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
                          "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
           "notebook": ["--JupyterNotebookApp.expose_app_in_browser=True"]}


@contextmanager
def run_lab(root: Path, home: Path, application: str = "jupyterlab") -> Iterator[str]:
    """A JupyterLab, or a Notebook 7 ("notebook"), that serves `root`, with its settings below `home`; gives its address."""
    settings = home / "config" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(json.dumps({
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}))
    port, log = free_port(), home / "log"
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", application, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={root}",
               "--ServerApp.disable_check_xsrf=True", *OPTIONS[application]]
    environment = os.environ | folders | {"IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    with open(log, "w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/api/status", process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def run_all(page, url: str, name: str, place: str = "lab/tree") -> None:
    """Open a notebook and run all of its cells, once its kernel is really there. place: "notebooks" in Notebook 7."""
    page.goto(f"{url}/{place}/{name}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.evaluate("""async () => {
        const session = jupyterapp.shell.currentWidget.sessionContext;
        await session.ready;
        await session.session.kernel.info;
    }""")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


EXPLORER = """from entropy_captum.drawn import procedural_scene
from entropy_captum.explorer import explore
from entropy_captum.models import load_model

scene = procedural_scene(2)
explorer = explore(load_model({model}), scene.image, label=scene.label, grid_size={grid_size}, n_samples={n_samples})
explorer"""


CITY = """import geopandas, rasterio
from entropy_captum.drawn import write_drawn_raster
from entropy_captum.explorer import explore
from entropy_captum.models import load_model
from entropy_captum.scene import Scene

with rasterio.open(write_drawn_raster("part", 2, 256)) as part:
    facts = part.profile | {"width": 4000, "height": 4000, "sparse_ok": True}
    with rasterio.open("city.tif", "w", **facts) as city:
        city.write(part.read(), window=rasterio.windows.Window(2000, 1000, 256, 256))
houses = geopandas.read_file("part/buildings.gpkg")
houses.geometry = houses.geometry.translate(2000 * 0.3, -1000 * 0.3)
houses.to_file("city.gpkg")
model = load_model()
scene = Scene("city.tif", model, "city.gpkg", bands=[1, 2, 3], scale=(0, 4095))
explorer = explore(model, scene, grid_size=2, n_samples=2, window=128)
explorer"""


def write_explorer(path: Path, grid_size: int | None = None, n_samples: int = 16, model: str = "") -> None:
    """A notebook whose one cell opens the explorer on a drawn scene; `model`: what `load_model` is given, by default nothing."""
    write_notebook(path, EXPLORER.format(grid_size=grid_size, n_samples=n_samples, model=model))


def write_notebook(path: Path, source: str) -> None:
    """A notebook of one cell of code."""
    code = nbformat.v4.new_code_cell(source)
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[code], metadata={"kernelspec": kernel}), path)


#: The explorer's picture; where two methods are compared there are two.
CANVAS = ".ec-panes canvas[role=application]"


def roof_on(canvas) -> dict[str, float]:
    """Where in the explorer's picture the roof lies that tests and pictures explain."""
    box, (y, x) = canvas.bounding_box(), np.argwhere(procedural_scene(2).instances == 8).mean(0) / 256
    return {"x": x * box["width"], "y": y * box["height"]}


def wait_for_message(page, pattern: str, seconds: int = 120) -> None:
    """Until the explorer's message matches a JavaScript pattern."""
    page.wait_for_function(f"() => /{pattern}/.test(document.querySelector('.ec-message').textContent)", timeout=seconds * 1000)
