# make demo | test | bench | docs | lint | wheel | clean. Everything happens in a virtual environment of its own
# (.venv), made by PYTHON; the compiled objects stay in build/, so a second build is short.
PYTHON ?= python3
WERROR ?= OFF
VENV := .venv
BIN := $(VENV)/bin
BUILD := build/venv
SOURCES := CMakeLists.txt pyproject.toml README.md LICENSE $(shell find csrc python -not -path '*__pycache__*')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench docs lint wheel clean

demo: $(VENV)/installed-plot
	$(BIN)/gvcore demo

test: $(VENV)/installed-test
	GVCORE_BUILD_DIR=$(BUILD) $(BIN)/python -m pytest tests

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks --quick

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

lint: $(VENV)/installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

wheel:
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "scikit-build-core>=0.11" "pybind11>=3.0" cmake ninja
	touch $@

$(VENV)/installed-%: $(VENV)/ready $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --config-settings=build-dir=$(BUILD) \
	  --config-settings=cmake.define.GVCORE_WERROR=$(WERROR) ".[$*]"
	touch $@
