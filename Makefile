# make demo          compile the bundled model, run it, compare it with the original, draw a picture
# make test          lint, check types and run the tests
# make test-caffe2   run the tests against the real Caffe2, which needs a Python 3.8 besides
# make test-python   test on each other Python that is found
# make test-lowest   test with the lowest versions that pyproject.toml allows
# make test-install  build the packages, install them into fresh environments, run them there
# make system        install what tests need beyond Python: Chromium, a C++ compiler, libpng
# make bench         measure against other exporters, into benchmarks/RESULTS.md
# Each sets up .venv by itself; PYTHON says from which Python (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Type checker and import linter want the packages as they are installed, under one folder `detc`.
PACKAGE := build/package
SOURCES := $(shell find driver frontend ir passes backends -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: demo test test-caffe2 test-python test-lowest test-install system bench lint types unit clean

demo: $(INSTALLED)
	$(BIN)/detc demo

test: lint types unit

# The last wheels that hold Caffe2 need Python 3.8, found on PATH or through pyenv. Without one this says so and skips
# the tests, except in CI (CI=true), where it fails.
test-caffe2: $(INSTALLED)
	$(BIN)/python -m tests.environments caffe2
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile tests/caffe2_real

# Pythons are found on PATH or through pyenv. Which are missing is said; in CI one other than .venv's must be there.
test-python: $(INSTALLED)
	$(BIN)/python -m tests.environments pythons

test-lowest: $(INSTALLED) $(PACKAGE)/complete
	$(BIN)/python -m tests.environments lowest

# `make test` does this too, with links to what .venv holds; here pip installs it all.
test-install: $(INSTALLED)
	$(BIN)/python -m tests.installation

# The report is tested in Chromium, the C++ example with a compiler, CMake and libpng. This installs Debian's packages of what is
# missing, if it may; otherwise those tests are skipped with a message, except in CI (CI=true), where this fails.
system: $(INSTALLED)
	$(BIN)/python -m tests.system

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

lint: $(INSTALLED) $(PACKAGE)/complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(PACKAGE) && $(abspath $(BIN))/lint-imports --config $(abspath pyproject.toml) --no-cache

types: $(INSTALLED) $(PACKAGE)/complete
	MYPYPATH=$(PACKAGE) $(BIN)/mypy -n 2 -p detc

# The last step, so that pytest's summary stands at the end. Files run in their order: sorted by their number of tests, as
# is pytest-xdist's default, those with a few long ones would come last, on one core.
unit: $(INSTALLED) lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "detc needs Python 3.11 or later; set PYTHON to one")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --upgrade pip
	@# setuptools warns of every editable installation.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

$(PACKAGE)/complete: pyproject.toml $(SOURCES) | $(INSTALLED)
	rm -rf build
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $(PACKAGE) .
	@touch $@

clean:
	rm -rf build demo-output .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
