# Everything here needs only Python 3.11 or newer and make. The first run makes .venv.

PYTHON ?= python3
JOBS   ?= auto
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-plot  ## dilated convolution on a photograph, and a network under lax and under jaxdil
	@$(BIN)/python -m benchmarks.demo

test: $(VENV)/.installed-test-docs-plot-peers  ## the test suite; ARGS="-k name" passes options to pytest
	@$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-lint  ## ruff (rules and format) and mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(VENV)/.installed-lint  ## let ruff repair and format what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(VENV)/.installed-test-docs-plot  ## build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Documentation is in site/index.html"

bench: $(VENV)/.installed-bench  ## measure this machine; raw results go to benchmarks/results/
	@$(BIN)/python -m benchmarks run $(ARGS)

clean:  ## remove the environments, caches and built files
	rm -rf $(VENV) .venv-oldest site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras, `-` between their names, so that the demo does not wait for the
# packages of the tests. A change of pyproject.toml installs again.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing jaxdil[$(subst -,$(comma),$*)] into $(VENV) (the first time takes a few minutes) ..."
	@$(PIP) install --editable '.[$(subst -,$(comma),$*)]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxdil needs Python 3.11 or newer; choose one with: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

comma := ,
