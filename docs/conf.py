"""Sphinx reads this; `make docs` stages the sources beside a copy of it (see tools/docs.py)."""
from __future__ import annotations

import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["ENTROPY_CAPTUM_ROOT"])
sys.path.insert(0, str(ROOT))
parser = ConfigParser(delimiters=["="])
parser.read(ROOT / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

project, author, release = "Entropy Captum", settings["author"], settings["version"]
copyright = settings["copyright"]
html_title = f"Entropy Captum {release}"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax", "sphinx_design"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_show_sourcelink = False
html_domain_indices = False
html_copy_source = False
# A copy of MathJax lies in _static: no page asks another host for anything.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}

# The notebooks carry their outputs; the build runs nothing.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
# An alias of a builtin type is no code of that module.
viewcode_follow_imported_members = False


ARRAY = re.compile(r"[~\w.]*ndarray\[tuple\[[~\w.]*Any, \.\.\.\], [~\w.]*dtype\[[~\w.]*?(\w+)\]\]")


def shorten_arrays(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, *signature: str | None) -> tuple[str | None, ...]:
    """`NDArray[float64]` for what numpy spells `ndarray[tuple[Any, ...], dtype[float64]]`, in arguments and returns."""
    return tuple(text and ARRAY.sub(r"NDArray[\1]", text) for text in signature)


def drop_field_numbers(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """A named tuple's fields are told by its docstring; Python's own "Alias for field number 0" tells nothing."""
    lines[:] = [line for line in lines if not line.startswith("Alias for field number")]


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("autodoc-process-docstring", drop_field_numbers)
