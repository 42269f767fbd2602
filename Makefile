# `make demo` and `make test` set up all they need; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2
STAMP := .venv/.installed
# TORCH=oldest: the lower bound in settings.ini, in its latest patch; otherwise the newest release that all agree on.
OLDEST := $(shell sed -n 's/^requirements = *\(.* \)*torch>=\([0-9.]*\).*/torch==\2.*/p' settings.ini)

.PHONY: help demo test fast check test-only bench check-exact fuzz qgis train train-others lab readme docs docs-check dist release-check pictures clean
help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/'

# Compiled once here: each process of the tests that had to compile torch and the rest itself would take 20 s to start, not 9.
$(STAMP): settings.ini setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '.[dev]' $(if $(filter oldest,$(TORCH)),'$(OLDEST)')
	@touch $(STAMP)

demo: $(STAMP)   ## explain a building of a drawn scene by four methods; results in demo/
	$(BIN)/entropy-captum demo --out demo

test: $(STAMP)   ## everything: exports in sync, ruff, mypy, notebooks, pytest
	$(BIN)/python tools/check.py test

fast: $(STAMP)   ## what a change usually breaks, in under three minutes: check, and the tests that are not marked as long
	$(BIN)/python tools/check.py fast

check: $(STAMP)  ## the first part of test: exports in sync, ruff, mypy
	$(BIN)/python tools/check.py check

test-only: $(STAMP) ## the rest of test: notebooks and pytest; with TORCH=oldest on a new .venv under the oldest torch allowed
	$(BIN)/python tools/check.py test-only

bench: $(STAMP)  ## benchmarks, both sides in one process; the table goes to nbs/benchmarks
	$(BIN)/python tools/bench.py

check-exact: $(STAMP)  ## incremental inference of every architecture and encoder against full forwards
	$(BIN)/python tools/check_exact.py

fuzz: $(STAMP)   ## 200 random small networks, incremental inference against full; prints the seed of each failure
	$(BIN)/python tools/fuzz.py

qgis: $(STAMP)   ## QGIS and GDAL's programs open maps and patches: all lies where it should; what QGIS draws goes to _qgis
	$(BIN)/python tools/check_qgis.py

train: $(STAMP)  ## train the bundled network on $$ENTROPY_CAPTUM_DATA/whu and inria
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[train]'
	$(BIN)/entropy-captum train "$$ENTROPY_CAPTUM_DATA/whu" "$$ENTROPY_CAPTUM_DATA/inria"
	$(BIN)/entropy-captum train "$$ENTROPY_CAPTUM_DATA/whu" "$$ENTROPY_CAPTUM_DATA/inria" --finish runs/rooftop/weights.safetensors --out runs/rooftop-finished

train-others: $(STAMP) ## train what the architecture table and the sanity check compare with the bundled network
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[train]'
	$(BIN)/entropy-captum train "$$ENTROPY_CAPTUM_DATA/whu" "$$ENTROPY_CAPTUM_DATA/inria" --encoder tu-tf_efficientnet_b0 --steps 600 --out runs/b0
	$(BIN)/entropy-captum train "$$ENTROPY_CAPTUM_DATA/whu" "$$ENTROPY_CAPTUM_DATA/inria" --encoder resnet18 --steps 800 --out runs/resnet18
	$(BIN)/entropy-captum train "$$ENTROPY_CAPTUM_DATA/whu" "$$ENTROPY_CAPTUM_DATA/inria" --shuffled --steps 250 --out runs/shuffled

docs: $(STAMP)   ## the documentation site in _build/html; warnings and broken links are errors
	$(BIN)/python tools/docs.py

docs-check: $(STAMP) ## run every notebook again and report outputs that differ from the stored ones
	$(BIN)/python tools/docs_check.py

dist: $(STAMP)   ## wheel and sdist in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

release-check:   ## fails unless $$TAG names the version in settings.ini
	@grep -qx 'version = $(TAG:v%=%)' settings.ini || { echo "the tag is '$(TAG)'; settings.ini has $$(grep '^version' settings.ini)" >&2; exit 1; }

lab: $(STAMP)    ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs/index.ipynb

readme: $(STAMP) ## README.md from nbs/index.ipynb
	$(BIN)/python tools/render_readme.py

pictures: $(STAMP) ## the pictures of README and site that are no notebook's output; needs Chromium
	$(BIN)/python tools/pictures.py

clean:           ## remove what the other targets made, but not .venv
	rm -rf demo explanation build dist _build
