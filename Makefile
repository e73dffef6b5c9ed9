# On a machine with Python 3.11 and make: `make demo`, `make test`. Everything installs into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test slow lint check audit format parity help clean

help: ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no Python found; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## make scenes, poison 1 %, scan them, compare with the truth
	$(BIN)/mmjax demo

test: $(STAMP) ## the default tests (ten minutes on 2 cores)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

slow: $(STAMP) ## the tests that take minutes each; a release runs them
	$(BIN)/python -m pytest -m slow --numprocesses=2 --dist=loadfile

lint: $(STAMP) ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

check: lint test ## what CI runs

audit: $(VENV)/audit/bin/pip-audit ## ask the advisory database about every pinned package
	$< --strict --requirement constraints.txt --no-deps --disable-pip

$(VENV)/audit/bin/pip-audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit

format: $(STAMP) ## rewrite files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(STAMP) ## compare with torch and open_clip (installs a CPU build of torch 2.13.0)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,parity]'
	$(BIN)/pip install --quiet --no-deps open-clip-torch timm
	$(BIN)/python -m pytest -m parity

clean: ## remove what make made
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache mmjax-demo
