# The commands of this project. Needed: Python 3.11 or newer with venv and headers, a C++ compiler (for hnswlib).
# On Debian: apt-get install make g++ python3 python3-dev python3-venv
#
#   make serve        install if needed, create the data directory if needed, serve on 127.0.0.1:8080
#   make test         install what tests need, run all of them
#   make lint         ruff and mypy
#   make test-long    the same tests with many more examples each
#   make test-clients foreign SDKs and clients against a server; installs them first, from PyPI and npm
#   make docs         write the documents as a site into dist/site, and follow every link in it
#   make bench        every benchmark that needs no data from outside
#   make lock         resolve the dependencies anew into requirements/*.txt, with hashes; ARGS=--upgrade for newer ones
#   make audit        look for known vulnerabilities in all that is locked; asks PyPI
#   make sbom         write dist/sbom.json (CycloneDX): what is installed in .venv
#   make wheel        write dist/memoryrouter-VERSION-py3-none-any.whl
#   make binary       write dist/memoryrouter: one executable file, with Python and the embedding model inside
#   make test-binary  the same, and try it out with nothing around it
#   make release-check  everything that docs/releasing.md asks for before a version is published
#
# ARGS is handed on: make serve ARGS="--port 9000", make test ARGS="tests/models -x".
# PYTHON chooses the interpreter that .venv is made with: make serve PYTHON=python3.12

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
# These need files of conversations, which are named to them; the names with _ are no benchmarks.
NEED_DATA := ablations fit_ranking fit_relevance follow_ups packing plot recall_quality robustness
BENCHMARKS := $(filter-out $(NEED_DATA),$(basename $(notdir $(sort $(wildcard bench/[a-z]*.py)))))
# Each client has an environment of its own, below .venv/clients: their dependencies contradict each other.
CLIENTS := $(basename $(notdir $(wildcard tests/clients/*.txt)))
TOOLS := .venv/tools/bin
UV := $(TOOLS)/uv

# Nothing is installed whose hash is not in a lock; what has no wheel is built with what is locked.
INSTALL := -m pip install --disable-pip-version-check --quiet
INSTALL_LOCKED := $(INSTALL) --require-hashes --no-build-isolation
INSTALL_SELF := $(INSTALL) --no-index --no-deps --no-build-isolation --editable .
LOCKED := build runtime tests tracing postgres binary docs tools
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(ARGS)

.DELETE_ON_ERROR:
.PHONY: serve test lint test-long test-clients docs bench lock audit sbom wheel binary test-binary release-check

# stdout belongs to the program: its one line is the account key, and scripts read it.
serve: .venv/installed
	@exec $(BIN)/python -m router serve $(ARGS)

test: .venv/installed-for-tests
	$(BIN)/python -m pytest $(ARGS)

test-long: .venv/installed-for-tests
	$(BIN)/python -m pytest --hypothesis-profile=long $(ARGS)

test-clients: .venv/installed-for-tests $(CLIENTS:%=.venv/clients/%/installed) .venv/clients/npm/installed \
		.venv/clients/agents/installed
	$(BIN)/python -m pytest tests/clients $(ARGS)

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site's generator has an environment of its own. The page of the API is written first, from the table of operations.
docs: .venv/installed .venv/docs/installed
	@$(BIN)/python -m docs.site.reference
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --quiet --clean --strict --config-file docs/site/mkdocs.yml
	@.venv/docs/bin/python docs/site/check.py dist/site

bench: .venv/installed-for-tests
	@for name in $(BENCHMARKS); do echo "== $$name" && $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "MemoryRouter needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv >&2

# The stamps make a second `make serve` start at once. Newer locks make them stale.
.venv/installed: pyproject.toml requirements/build.txt requirements/runtime.txt | .venv/bin/python
	@echo "Installing MemoryRouter into .venv; this takes a minute, once." >&2
	@$(BIN)/python $(INSTALL_LOCKED) --requirement requirements/build.txt >&2
	@$(BIN)/python $(INSTALL_LOCKED) --requirement requirements/runtime.txt >&2
	@$(BIN)/python $(INSTALL_SELF) >&2
	@touch $@

.venv/installed-for-tests: pyproject.toml requirements/build.txt requirements/tests.txt | .venv/bin/python
	@$(BIN)/python $(INSTALL_LOCKED) --requirement requirements/build.txt >&2
	@$(BIN)/python $(INSTALL_LOCKED) --requirement requirements/tests.txt >&2
	@$(BIN)/python $(INSTALL_SELF) >&2
	@touch .venv/installed $@

.venv/docs/installed: requirements/build.txt requirements/docs.txt | .venv/bin/python
	@$(BIN)/python -m venv --clear .venv/docs >&2
	@.venv/docs/bin/python $(INSTALL_LOCKED) --requirement requirements/build.txt >&2
	@.venv/docs/bin/python $(INSTALL_LOCKED) --requirement requirements/docs.txt >&2
	@touch $@

# Apart from the program, and from its tests: what looks at the dependencies must not add to them.
.venv/tools/installed: requirements/tools.txt | .venv/bin/python
	@$(BIN)/python -m venv --clear .venv/tools >&2
	@$(TOOLS)/python $(INSTALL_LOCKED) --requirement requirements/tools.txt >&2
	@touch $@

# Each lock keeps the versions that it has, unless ARGS=--upgrade. Those of the program come first; the others follow.
lock: .venv/tools/installed
	$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra test --extra lint --extra tracing --extra postgres --constraints requirements/runtime.txt \
		--output-file requirements/tests.txt
	$(COMPILE) pyproject.toml --extra tracing --constraints requirements/tests.txt \
		--output-file requirements/tracing.txt
	$(COMPILE) pyproject.toml --extra postgres --constraints requirements/tests.txt \
		--output-file requirements/postgres.txt
	$(COMPILE) pyproject.toml --extra tracing --extra postgres --extra binary --constraints requirements/tests.txt \
		--output-file requirements/binary.txt
	$(COMPILE) requirements/build.in --constraints requirements/runtime.txt --output-file requirements/build.txt
	$(COMPILE) requirements/docs.in --output-file requirements/docs.txt
	$(COMPILE) requirements/tools.in --output-file requirements/tools.txt

# --strict: a package that the service does not know is a failure, too.
audit: .venv/tools/installed
	@for name in $(LOCKED); do echo "== requirements/$$name.txt" && $(TOOLS)/pip-audit --strict --progress-spinner off \
		--require-hashes --disable-pip --requirement requirements/$$name.txt $(ARGS) || exit 1; done

# The tool reads the version from pyproject.toml only where it stands there.
sbom: .venv/installed .venv/tools/installed
	@mkdir -p dist
	@sed "s/^dynamic = .*/version = \"$$($(BIN)/python -c 'from models.version import VERSION; print(VERSION)')\"/" \
		pyproject.toml >dist/pyproject.toml
	$(TOOLS)/cyclonedx-py environment --pyproject dist/pyproject.toml --output-reproducible --output-format JSON \
		--output-file dist/sbom.json $(BIN)/python

# The same source gives the same bytes: times in what is built are that of the last commit. setuptools would put files
# into a wheel that an earlier build has left.
DATED := SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}

wheel: .venv/installed
	@rm -rf build/lib build/bdist.* && mkdir -p dist && rm -f dist/memoryrouter-*.whl
	@$(DATED) $(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-index --no-deps --no-build-isolation \
		--wheel-dir dist . >&2
	@ls dist/memoryrouter-*.whl

# The binary must run on other processors than this one. pip would take an hnswlib from its cache that was built for
# this one, hence without the cache.
BINARY := .venv/binary/bin
SOURCES := $(shell find models actors router bench .ci/binary -type f ! -path '*/__pycache__/*') config.toml

.venv/binary/installed: requirements/build.txt requirements/binary.txt | .venv/bin/python
	@$(BIN)/python -m venv --clear .venv/binary >&2
	@$(BINARY)/python $(INSTALL_LOCKED) --requirement requirements/build.txt >&2
	@HNSWLIB_NO_NATIVE=1 $(BINARY)/python $(INSTALL_LOCKED) --no-cache-dir --requirement requirements/binary.txt >&2
	@touch $@

dist/memoryrouter: .venv/binary/installed $(SOURCES)
	@mkdir -p build/binary dist
	@$(DATED) PYTHONHASHSEED=0 PYINSTALLER_CONFIG_DIR=$(CURDIR)/build/binary/cache $(BINARY)/python -m PyInstaller --noconfirm \
		--clean --log-level ERROR --distpath build/binary/folder --workpath build/binary/work .ci/binary/memoryrouter.spec >&2
	@$(CC) -std=c11 -O2 -Wall -Wextra -Werror -static -s -o build/binary/launcher .ci/binary/launcher.c -lz
	@$(DATED) $(BINARY)/python .ci/binary/assemble.py build/binary/folder/memoryrouter build/binary/launcher $@ >&2

binary: dist/memoryrouter
	@ls -l dist/memoryrouter

test-binary: dist/memoryrouter .venv/installed-for-tests
	$(BIN)/python -m pytest tests/binary $(ARGS)

release-check: .venv/installed-for-tests
	@$(BIN)/python .ci/release_check.py
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) test-binary
	$(MAKE) wheel
	$(MAKE) audit
	$(MAKE) sbom

# pip needs minutes for what uv installs in seconds.
.venv/clients/%/installed: tests/clients/%.txt | .venv/tools/installed
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv/clients/$* >&2
	@$(UV) pip install --quiet --python .venv/clients/$*/bin/python --requirement $< >&2
	@touch $@

# Node comes from PyPI as well (tests/clients/nodejs.txt), so that nothing has to be on the machine.
# Coding agents are apart from the libraries: they are programs of 760 MB.
.venv/clients/npm/installed: tests/clients/node/package-lock.json
.venv/clients/agents/installed: tests/clients/agents/package-lock.json
.venv/clients/npm/installed .venv/clients/agents/installed: .venv/clients/nodejs/installed
	@mkdir -p $(@D) && cp $(filter %.json,$^) $(dir $(filter %.json,$^))package.json $(@D)
	@cd $(@D) && PATH="$(CURDIR)/.venv/clients/nodejs/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --silent >&2
	@touch $@
