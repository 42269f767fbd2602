"""Sphinx reads this; `make docs` stages the sources beside a copy of it (see tools/docs.py)."""
from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections import Counter
from configparser import ConfigParser
from functools import reduce
from pathlib import Path
from typing import Any

from docutils import nodes
from typer.models import ArgumentInfo, OptionInfo

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
html_js_files = ["copy.js"]
html_favicon = "_static/icon.svg"
# The dark half of Furo's light style: no underlined names, and a contrast of 7 at least.
pygments_dark_style = "a11y-dark"
html_show_sourcelink = False
html_domain_indices = False
html_copy_source = False
# A copy of MathJax lies in _static: no page asks another host for anything.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"scale": 0.9}}  # MathJax draws larger than the text around it

# The notebooks carry their outputs; the build runs nothing.
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "The imports of this module"
nb_code_prompt_hide = "The imports of this module"
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_*.md"]  # parts of pages
suppress_warnings = ["mystnb.unknown_mime_type"]

default_role = "code"
# Quotes and ellipses only: an option such as --out keeps its dashes.
smartquotes_action = "qe"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"special-members": "__call__, __and__, __or__"}
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
# An alias of a builtin type is no code of that module.
viewcode_follow_imported_members = False


# How Python and its tools spell what stands in a signature, and how a reader would.
SPELLINGS = (
    (re.compile(r"[~\w.]*ndarray\[tuple\[[~\w.]*Any, \.\.\.\], [~\w.]*dtype\[[~\w.]*?(\w+)\]\]"), r"NDArray[\1]"),
    (re.compile(r"Callable\[\[\.\.\.\], "), "Callable[..., "),
    (re.compile(r"<factory>"), "..."),
    (re.compile(r"<function (\w+)>"), r"\1"),
    (re.compile(r"\b(Posix|Windows)Path\("), "Path("),
)


def spelled(text: str) -> str:
    """A type as a reader would spell it."""
    return reduce(lambda shown, pair: pair[0].sub(pair[1], shown), SPELLINGS, text)


def shorten_types(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, *signature: str | None) -> tuple[str | None, ...]:
    """The spellings above in arguments and returns."""
    return tuple(text and spelled(text) for text in signature)


def skip_tuple_members(_app: Any, _what: str, _name: str, member: Any, skip: bool, _options: Any) -> bool | None:
    """A named tuple's fields are told by its signature and docstring; `count` and `index` are every tuple's."""
    return True if getattr(member, "__objclass__", None) is tuple or type(member).__name__ == "_tuplegetter" else None


def show_help(option: Any) -> str:
    """What a command's argument means, in place of an address that changes with every build."""
    return repr(option.help)


OptionInfo.__repr__ = ArgumentInfo.__repr__ = show_help  # type: ignore[method-assign]


# What a module is for, where other names of it are imported more often.
FIRST = {
    "adaptive.Goal", "capture.captured", "cli.explain", "evaluation.l_sit", "figures.explanation_figure",
    "files.read_image", "footprints.read_footprints", "hub.load_folder", "interactions.interactions", "planted.plant",
    "predicted.find_objects", "report.write_report", "sampling.PickFreeze", "scene_view.SceneSubject",
    "signs.inspect_model", "survey.survey", "workers.run_on",
}


def names_in_guides() -> Counter[str]:
    """How many guides, pages and commands import each name, `module.name`; those of the package count as if a hundred did."""
    texts = [(ROOT / "entropy_captum/cli.py").read_text(encoding="utf-8")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    for path in (ROOT / "nbs/index.ipynb", *(ROOT / "nbs/guides").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts.append("\n".join("".join(cell["source"]) for cell in cells))
    found: Counter[str] = Counter()
    for text in texts:
        imports = re.findall(r"^ *from (?:entropy_captum)?\.(\w+) import (\([^)]*\)|.*)", text, re.M)
        found.update({f"{module}.{name}" for module, names in imports for name in re.findall(r"\w+", names)})
    package = importlib.import_module("entropy_captum")
    for name in package.__all__:
        module = getattr(getattr(package, name), "__module__", "").rpartition(".")[2]
        found[f"{module}.{name}"] += 100 + sum(bool(re.search(rf"\b{name}\b", text)) for text in texts)
    return found


def names_in_modules() -> Counter[str]:
    """How many modules import each name, `module.name`, and 1 more for the commands."""
    found: Counter[str] = Counter()
    for path in (ROOT / "entropy_captum").glob("[a-z]*.py"):
        imports = re.findall(r"^ *from \.(\w+) import (\([^)]*\)|.*)", path.read_text(encoding="utf-8"), re.M)
        found.update({f"{module}.{name}" for module, names in imports for name in re.findall(r"\w+", names)})
    cli = importlib.import_module("entropy_captum.cli")
    commands = (*cli.app.registered_commands, *cli.model_app.registered_commands)
    return found + Counter(f"cli.{command.callback.__name__}" for command in commands)


def begin_with_what_users_call() -> None:
    """Order the names of each module, which autodoc follows: what can be called, that which guides use first, then constants.

    `FIRST` is before all. Of names that guides use alike those come first that more modules import, then the later ones, for a
    notebook ends with what it builds up; names that nothing imports stay as they are.
    """
    used, needed = names_in_guides(), names_in_modules()
    for path in (ROOT / "entropy_captum").glob("[a-z]*.py"):
        module = importlib.import_module(f"entropy_captum.{path.stem}")
        places = {name: k for k, name in enumerate(module.__all__)}

        def rank(name: str, module: Any = module, places: dict[str, int] = places) -> tuple[bool, bool, int, int, int]:
            value, full = getattr(module, name), f"{module.__name__.rpartition('.')[2]}.{name}"
            count, others = used[full], needed[full]
            constant = not (inspect.isclass(value) or inspect.isroutine(value))
            return full not in FIRST, constant, -count, -others, -places[name] if count + others else places[name]

        module.__all__.sort(key=rank)


def say_only_what_helps(_app: Any, doctree: nodes.document) -> None:
    """That a class is an object goes without saying; what an alias stands for is spelled as in signatures."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        text = paragraph.astext()
        if text == "Bases: object":
            paragraph.parent.remove(paragraph)
        elif text.startswith("alias of "):
            shown = spelled(text.replace("…", "..."))
            if shown != text:
                paragraph[:] = [nodes.Text("alias of "), nodes.literal("", shown.removeprefix("alias of "))]


def keep_names_whole(_app: Any, doctree: nodes.document, _page: str) -> None:
    """The names of the two tests do not break at their hyphens, which narrow columns of tables would do."""
    for text in list(doctree.findall(nodes.Text)):
        parts = re.split(r"\b([LH]-SIT)\b", str(text))
        if len(parts) > 1 and not isinstance(text.parent, nodes.literal | nodes.literal_block | nodes.raw | nodes.math):
            text.parent.replace(text, [nodes.inline("", part, classes=["whole"]) if k % 2 else nodes.Text(part)
                                       for k, part in enumerate(parts) if part])


def setup(app: Any) -> None:
    begin_with_what_users_call()
    app.connect("doctree-read", say_only_what_helps)
    app.connect("doctree-resolved", keep_names_whole)
    app.connect("autodoc-process-signature", shorten_types)
    app.connect("autodoc-skip-member", skip_tuple_members)
