# The commands of this project. Needed: Python 3.11 or newer with venv and headers, a C++ compiler (for hnswlib).
# On Debian: apt-get install make g++ python3 python3-dev python3-venv
#
#   make serve        install if needed, create the data directory if needed, serve on 127.0.0.1:8080
#   make test         install what tests need, run all of them
#   make lint         ruff and mypy
#   make test-long    the same tests with many more examples each
#   make test-clients foreign SDKs and clients against a server; installs them first, from PyPI and npm
#   make bench        every benchmark that needs no data from outside
#
# ARGS is handed on: make serve ARGS="--port 9000", make test ARGS="tests/models -x".
# PYTHON chooses the interpreter that .venv is made with: make serve PYTHON=python3.12

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
# recall_quality measures a running server on files that are named to it; the names with _ are no benchmarks.
BENCHMARKS := $(filter-out recall_quality,$(basename $(notdir $(sort $(wildcard bench/[a-z]*.py)))))
# Each client has an environment of its own, below .venv/clients: their dependencies contradict each other.
CLIENTS := $(basename $(notdir $(wildcard tests/clients/*.txt)))
UV_VERSION := 0.13.9
UV := .venv/clients/uv-$(UV_VERSION)/bin/uv

.DELETE_ON_ERROR:
.PHONY: serve test lint test-long test-clients bench

# stdout belongs to the program: its one line is the account key, and scripts read it.
serve: .venv/installed
	@exec $(BIN)/python -m router serve $(ARGS)

test: .venv/installed-for-tests
	$(BIN)/python -m pytest $(ARGS)

test-long: .venv/installed-for-tests
	$(BIN)/python -m pytest --hypothesis-profile=long $(ARGS)

test-clients: .venv/installed-for-tests $(CLIENTS:%=.venv/clients/%/installed) .venv/clients/npm/installed
	$(BIN)/python -m pytest tests/clients $(ARGS)

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

# pip needs minutes for what uv installs in seconds.
.venv/clients/uv-$(UV_VERSION): | .venv/bin/python
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --target $@ uv==$(UV_VERSION) >&2

.venv/clients/%/installed: tests/clients/%.txt | .venv/clients/uv-$(UV_VERSION)
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv/clients/$* >&2
	@$(UV) pip install --quiet --python .venv/clients/$*/bin/python --requirement $< >&2
	@touch $@

# Node comes from PyPI as well (tests/clients/nodejs.txt), so that nothing has to be on the machine.
.venv/clients/npm/installed: tests/clients/node/package-lock.json .venv/clients/nodejs/installed
	@mkdir -p $(@D) && cp tests/clients/node/package.json tests/clients/node/package-lock.json $(@D)
	@cd $(@D) && PATH="$(CURDIR)/.venv/clients/nodejs/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --silent >&2
	@touch $@
