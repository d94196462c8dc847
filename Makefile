# From a bare checkout: python3 (3.11 or newer) and make, nothing else. `make help` lists the targets.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

# Ray runs its workers at niceness 15 unless told otherwise: on a busy machine the handlers would starve beside the
# very clients that load them.
export RAY_worker_niceness := 0
export RAY_USAGE_STATS_ENABLED := 0

# Made anew when the lock or the project file changes, else a matter of milliseconds.
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: install
install: $(INSTALLED) ## Everything locked in requirements.lock, and this checkout, into .venv

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'raymesh needs Python 3.11 or newer; set PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: install ## The main job: a mesh under load, handlers killed, nothing lost
	$(BIN)/mesh demo

# ------------------------------------------------------------------------------------------------------------ lint

.PHONY: lint
lint: install ## Format, lint, types, direction of imports, spelling, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@if compgen -G 'tests/typing/*.py' > /dev/null; then $(MAKE) --no-print-directory typecheck; fi
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/deptry .

.PHONY: typecheck
typecheck: install ## What users write, against the public types (tests/typing)
	$(BIN)/mypy --strict tests/typing/*.py

.PHONY: format
format: install ## Format and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# ------------------------------------------------------------------------------------------------------------ test

# One pytest run a folder, so that a folder whose tests were all deselected fails (exit 5), while one that has no
# tests yet only says so.
define run-tests
set -e; for folder in $(1); do \
    if [ -n "$$(find $$folder -name 'test_*.py' -print -quit 2> /dev/null)" ]; then \
        echo "== $$folder"; $(BIN)/pytest $(2) $$folder; \
    else \
        echo "== $$folder: no tests yet"; \
    fi; \
done
endef

.PHONY: test
test: lint test-unit test-sim test-store test-cluster ## The default suite, cheap first, stops at the first failure

# Prerequisites run from left to right; with `make -j` they would not.
.NOTPARALLEL:

.PHONY: test-unit test-sim test-store test-cluster
test-unit: install ## No socket, no Ray, no real clock
	@$(call run-tests,tests/unit tests/property,-m 'not slow')

test-sim: install ## Schedules and the simulator
	@$(call run-tests,tests/scenarios tests/sim,-m 'not slow')

test-store: install ## Real sockets and store servers
	@$(call run-tests,tests/contract tests/integration,-m 'not slow')

test-cluster: install ## Real Ray
	@$(call run-tests,tests/cluster,-m 'not slow')

.PHONY: test-slow
test-slow: install ## Only what is marked slow
	@set -e; for folder in $$(grep -rlE --include='*.py' 'mark\.slow' tests | xargs -n 1 dirname | sort -u); do \
	    echo "== $$folder, slow"; $(BIN)/pytest -m slow $$folder; \
	done

.PHONY: soak
soak: install ## Hours of random schedules: hypothesis' profile `soak`, 50,000 simulated meshes (SIM_SEEDS=... for others)
	@HYPOTHESIS_PROFILE=soak; SIM_SEEDS=$${SIM_SEEDS:-50000}; export HYPOTHESIS_PROFILE SIM_SEEDS; \
	    $(call run-tests,tests/property tests/scenarios tests/sim,--timeout 0)

.PHONY: cover
cover: install ## Branch coverage of what runs without Ray
	$(BIN)/coverage run -m pytest -m 'not slow and not cluster'
	$(BIN)/coverage report

.PHONY: bench
bench: install ## How long traffic takes to spread anew when handlers die
	$(BIN)/python -m benchmarks.redistribution

# ------------------------------------------------------------------------------------------------------------ rest

# No URL and no machine's path in the lock: it is the same from any index or mirror.
.PHONY: lock
lock: ## Resolve anew and pin with hashes, for every platform (LOCK_FLAGS=--upgrade for newer versions)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    --all-extras --group dev $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml

.PHONY: clean
clean: ## Caches and build results; .venv stays
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
