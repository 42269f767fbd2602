"""What `make pictures` runs: the pictures in README and site that are no notebook's output.

README's come from the landing notebook (`tools/render_readme.py`). The explorer's is taken in a real JupyterLab, on a drawn scene.
"""
from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from entropy_captum.explorer import SHOWN

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import CANVAS, open_browser, roof_on, run_all, run_lab, wait_for_message, write_explorer  # noqa: E402


def photograph_explorer(out: Path) -> None:
    """Click a roof in the explorer, wait for the verdict, and keep the picture in 256 colours."""
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        root = Path(name) / "root"
        root.mkdir()
        write_explorer(root / "explorer.ipynb", grid_size=16, n_samples=8)  # as README's example
        with run_lab(root, Path(name) / "home") as url:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            run_all(page, url, "explorer.ipynb")
            canvas = page.locator(CANVAS)
            canvas.wait_for(timeout=120_000)
            canvas.click(position=roof_on(canvas))
            wait_for_message(page, "Done: gap", 300)
            canvas.hover(position=roof_on(canvas))
            shot = page.locator(".ec-explorer").screenshot()
    words = PngInfo()  # by which a test sees that the picture is of today's explorer
    words.add_text("words", json.dumps([*SHOWN.values()]))
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(256).save(out, optimize=True, pnginfo=words)


if __name__ == "__main__":
    subprocess.run([sys.executable, ROOT / "tools" / "render_readme.py"], check=True)
    photograph_explorer(ROOT / "docs" / "_static" / "explorer.png")
