# The commands of this project. Needed: Python 3.11 or newer with venv and headers, a C++ compiler (for hnswlib).
# On Debian: apt-get install make g++ python3 python3-dev python3-venv
#
#   make serve        install if needed, create the data directory if needed, serve on 127.0.0.1:8080
#   make test         install what tests need, run all of them
#   make lint         ruff and mypy
#   make test-long    the same tests with many more examples each
#   make bench        every benchmark that needs no data from outside
#
# ARGS is handed on: make serve ARGS="--port 9000", make test ARGS="tests/models -x".
# PYTHON chooses the interpreter that .venv is made with: make serve PYTHON=python3.12

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
# recall_quality measures a running server on files that are named to it; the names with _ are no benchmarks.
BENCHMARKS := $(filter-out recall_quality,$(basename $(notdir $(sort $(wildcard bench/[a-z]*.py)))))

.DELETE_ON_ERROR:
.PHONY: serve test lint test-long bench

# stdout belongs to the program: its one line is the account key, and scripts read it.
serve: .venv/installed
	@exec $(BIN)/python -m router serve $(ARGS)

test: .venv/installed-for-tests
	$(BIN)/python -m pytest $(ARGS)

test-long: .venv/installed-for-tests
	$(BIN)/python -m pytest --hypothesis-profile=long $(ARGS)

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-for-tests
	@for name in $(BENCHMARKS); do echo "== $$name" && $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "MemoryRouter needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv >&2

# The stamps make a second `make serve` start at once. Newer dependencies in pyproject.toml make them stale.
.venv/installed: pyproject.toml | .venv/bin/python
	@echo "Installing MemoryRouter into .venv; this takes a minute, once." >&2
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable . >&2
	@touch $@

.venv/installed-for-tests: pyproject.toml | .venv/bin/python
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[test,lint]' >&2
	@touch .venv/installed $@
