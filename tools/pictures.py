"""What `make pictures` runs: the pictures in README and site that are no notebook's output.

README's come from the landing notebook (`tools/render_readme.py`). The explorer's is taken in a real JupyterLab, on a drawn scene.
"""
from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import open_browser, run_all, run_lab  # noqa: E402

from entropy_captum.data import procedural_scene  # noqa: E402

CODE = """from entropy_captum.data import procedural_scene
from entropy_captum.explorer import explore
from entropy_captum.zoo import rooftop_unet

scene = procedural_scene(2)
explorer = explore(rooftop_unet(), scene.image, label=scene.label)
explorer"""


def photograph_explorer(out: Path) -> None:
    """Click a roof in the explorer, wait for the verdict, and keep the picture in 256 colours."""
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        root = Path(name) / "root"
        root.mkdir()
        cells = [nbformat.v4.new_code_cell(CODE)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
            "name": "python3", "display_name": "python3", "language": "python"}}), root / "explorer.ipynb")
        with run_lab(root, Path(name) / "home") as url:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            run_all(page, url, "explorer.ipynb")
            canvas = page.locator(".ec-picture canvas")
            canvas.wait_for(timeout=120_000)
            box, (y, x) = canvas.bounding_box(), np.argwhere(procedural_scene(2).instances == 8).mean(0) / 256
            canvas.click(position={"x": x * box["width"], "y": y * box["height"]})
            page.wait_for_function("() => /Done: gap/.test(document.querySelector('.ec-message').textContent)", timeout=300_000)
            canvas.hover(position={"x": x * box["width"], "y": y * box["height"]})
            shot = page.locator(".ec-explorer").screenshot()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    subprocess.run([sys.executable, ROOT / "tools" / "render_readme.py"], check=True)
    photograph_explorer(ROOT / "docs" / "_static" / "explorer.png")
