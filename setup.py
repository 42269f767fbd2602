"""Reads settings.ini, the one configuration of the project."""
import re
from configparser import ConfigParser
from itertools import chain
from pathlib import Path

import setuptools

root = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(root / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

STATUSES = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}


def requirements(key: str) -> list[str]:
    return settings[key].split()


def description_page() -> str:
    """README.md for a package index, which has none of the repository's files: its links and pictures get full addresses."""
    text = (root / "README.md").read_text(encoding="utf-8")
    raw = settings["git_url"].replace("github.com", "raw.githubusercontent.com")
    tag = f"v{settings['version']}"
    text = re.sub(r'(\bsrc(?:set)?=")(?!https?:)', rf"\g<1>{raw}/{tag}/", text)
    text = re.sub(r"((?<!!)\[[^]]*\]\()#", r"\1README.md#", text)  # an index gives headings no anchors
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:)", rf"\g<1>{settings['git_url']}/blob/{tag}/", text)


MODELS = requirements("models_requirements")
STUDY, LAB = [*MODELS, *requirements("study_requirements")], [*MODELS, *requirements("lab_requirements")]
ALL, DOCS = [*STUDY, *requirements("lab_requirements")], requirements("docs_requirements")
# What models from elsewhere need: one extra for each way they come, none of them in [all].
ELSEWHERE = {name: [*MODELS, *requirements(f"{name}_requirements")] for name in ("geo", "onnx", "openvino", "transformers")}
EXTRAS = {"models": MODELS, "study": STUDY, "lab": LAB, "all": ALL, "docs": DOCS, **ELSEWHERE,
          "train": [*MODELS, *requirements("train_requirements")],
          "dev": [*ALL, *DOCS, *chain.from_iterable(ELSEWHERE.values()), *requirements("dev_requirements")]}

home = settings["doc_host"] + settings["doc_baseurl"]
setuptools.setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=description_page(),
    long_description_content_type="text/markdown",
    keywords=settings["keywords"],
    author=settings["author"],
    author_email=settings["author_email"],
    url=home,
    project_urls={"Documentation": home, "Source": settings["git_url"], "Issues": settings["git_url"] + "/issues",
                  "Changelog": home + "/changelog.html"},
    license="Apache-2.0",
    classifiers=[
        f"Development Status :: {STATUSES[settings['status']]}",
        f"Intended Audience :: {settings['audience']}",
        f"Natural Language :: {settings['language']}",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=setuptools.find_packages(include=[settings["lib_name"], settings["lib_name"] + ".*"]),
    package_data={settings["lib_name"]: ["py.typed", "weights/*", "*.js", "*.css"]},
    python_requires=">=" + settings["min_python"],
    install_requires=requirements("requirements"),
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [f"entropy-captum={settings['lib_name']}.cli:main"],
        "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"],
    },
    zip_safe=False,
)
