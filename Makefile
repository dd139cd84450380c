# Every target sets itself up on a fresh machine: the virtual environment is remade when
# pyproject.toml changes.
PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE  # or every process of the tests compiles every module anew
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARTS := simulator architectures workloads scripts
# Run with every index of every kernel checked; the cache of such kernels is their own.
CHECKED := tests/engine/test_engines_equal.py tests/engine/test_gates.py \
	tests/engine/test_timeline.py tests/memory/test_dram_engines.py
# Each of two processes starts at a half of the tests and, when done, takes from the other's: they
# rarely compile the same kernels or make the same fixtures at once, and end together.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-slow explore venv bench docs lint format clean

venv: $(STAMP)

$(STAMP): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: venv
	$(BIN)/python -m sparqsim.scripts.scenarios.demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed/sparqsim
	ln -s $(CURDIR)/sparqsim/* $(addprefix $(CURDIR)/,$(PARTS)) build/typed/sparqsim/
	$(BIN)/mypy

test: lint
	$(PYTEST)

test-slow: venv
	$(PYTEST) -m "slow and not models"
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/build/boundscheck $(PYTEST) $(CHECKED)

# The same tests on other draws than every run has.
explore: venv
	$(PYTEST) -m "not models" --hypothesis-profile afresh

bench: venv
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.dram
	$(BIN)/python -m benchmarks.fast_forward
	$(BIN)/python -m benchmarks.formats
	$(BIN)/python -m benchmarks.process
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.traces

# A strict build: a warning fails it. The site is build/docs/index.html.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W -E -a --keep-going -b html docs build/docs

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $(VENV)/.docs

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist out *.egg-info
