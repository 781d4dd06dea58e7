# Everything a developer or the CI runs; `make help` lists it. Needs make and Python 3.11 or newer.
# The first target that needs tools makes a virtual environment, and makes it again only when
# pyproject.toml changes.

VENV ?= .venv
NODES ?= 3
BASE_PORT ?= 8080
FILE ?=
TARGET ?= plain
SECONDS ?= 60
MEMBERS ?= 10
ROUNDS ?= 20
WORKERS ?= 4
CONSTRAINTS ?=
ROW ?=
ARGS ?=

# Some version managers put commands on the PATH that are there and yet fail, so each is run.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

BIN = $(VENV)/bin
READY = $(VENV)/.ready-for-tribes

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types layers vectors docs coverage mutants proof rolling soak fuzz bench build release lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  \1@/p' Makefile | while IFS=@ read -r name text; do \
		printf '%-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  VENV=DIR     the virtual environment to use (now: $(VENV))'
	@echo '  PYTHON=PATH  the interpreter it is made with (now: $(PYTHON))'

setup: $(READY)  ## make the virtual environment with everything installed
	@:

$(READY): pyproject.toml
	@if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
		python='$(PYTHON)'; \
		if [ -z "$$python" ]; then \
			echo 'No Python 3.11 or newer was found. Install one, or give its path: make PYTHON=…' >&2; \
			exit 1; \
		fi; \
		if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
			echo "$$python cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
			echo 'On Debian and Ubuntu they come with: apt-get install python3-venv' >&2; \
			exit 1; \
		fi; \
		"$$python" -m venv '$(VENV)'; \
	fi
	@echo 'Installing into $(VENV); this takes a minute.'
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]' \
		$(if $(CONSTRAINTS),--constraint '$(CONSTRAINTS)')
	@touch $@

demo: $(READY)  ## start NODES=3 nodes with a web page each, from port BASE_PORT=8080 up
	@$(BIN)/tribes demo --nodes $(NODES) --base-port $(BASE_PORT)

test: $(READY)  ## run the whole test suite in WORKERS=4 processes (ARGS='-k frame -x' go to pytest)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: lint types layers vectors  ## run everything quick: before each commit
	@$(BIN)/python -m pytest -m 'not slow' $(ARGS)

lint: $(READY)  ## check format and style
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

format: $(READY)  ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

types: $(READY)  ## check types
	@$(BIN)/mypy

layers: $(READY)  ## check who imports whom
	@$(BIN)/lint-imports --no-logo

vectors: $(READY)  ## replay what a real Tomcat sent; none may be skipped (FILE=… for other vectors)
	@$(BIN)/python -m tribes.testing.vectors $(FILE)

docs: $(READY)  ## make the site from docs/ and the docstrings, into docs/_build; a warning is an error
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build

coverage: $(READY)  ## run the whole test suite and say which lines it missed
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report

mutants: $(READY)  ## break the product on purpose and see that it is noticed (ARGS='--seeds 20')
	@$(BIN)/python tests/mutants/run.py $(ARGS)

proof: $(READY)  ## show on real processes, at full size, what is claimed of members and of Backup
	@TRIBES_PROOF=1 $(BIN)/python -m pytest tests/chaos/members tests/chaos/backup $(ARGS)

rolling: $(READY)  ## restart MEMBERS=10 web nodes in turn under load, ROUNDS=20 times
	@TRIBES_ROLLING_MEMBERS=$(MEMBERS) TRIBES_ROLLING_ROUNDS=$(ROUNDS) \
		$(BIN)/python -m pytest tests/chaos/web/test_rolling.py $(ARGS)

soak: ROUNDS = 100
soak: rolling  ## the same, 100 times

fuzz: $(READY)  ## fuzz TARGET=plain for SECONDS=60 (ARGS='--help' lists the targets)
	@$(BIN)/python tests/fuzz/run.py $(TARGET) --seconds $(SECONDS) $(ARGS)

bench: $(READY)  ## measure ours beside Tomcat, Redis and others: all rows, or ROW=name (ARGS='--list')
	@$(BIN)/python -m bench $(ROW) $(ARGS)

build: $(READY)  ## build sdist and wheel into dist/
	@$(BIN)/python -m build --no-isolation

release: $(READY)  ## build, check, install with each extra alone, list what is in it; uploads nothing
	@$(BIN)/python tests/release/run.py $(ARGS)

lock: $(READY)  ## pin what the tools resolve to now in constraints.txt (make setup CONSTRAINTS=constraints.txt)
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --all-build-deps --extra dev --extra all \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header \
		--output-file constraints.txt pyproject.toml

clean:  ## remove what the tools left behind; the virtual environment stays
	@rm -rf dist build docs/_build docs/reference .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	@find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
