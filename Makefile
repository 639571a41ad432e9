# The project's commands; `make` alone lists them. Each sets up .venv first if it has to.

PYTHON ?= python3
TESTS ?= tests -m 'not long'
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

# The programs of the environment come first, also for the commands that DVC starts.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Nothing here reports to anybody.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

# Programs start hundreds of times in the tests, and in each training several times: Python keeps their bytecode.
unexport PYTHONDONTWRITEBYTECODE

# What `make clean` removes: everything that the other targets make.
MADE := $(VENV) outputs data/prepared .generalist runs tuning comparisons results mlflow.db mlflow.db-shm mlflow.db-wal mlruns mlartifacts \
	.dvc/cache .dvc/tmp build dist generalist.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache \
	.hypothesis

.DEFAULT_GOAL := help
.PHONY: help run test test-long fuzz check serve table setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: ## set up, then the whole journey: data, training, evaluation, ONNX model, registry
	@if [ ! -e $(SETUP) ]; then \
		echo "Needs about 5 minutes and 3 GB of disk to set up $(VENV) (this time only),"; \
		echo "then about 3 minutes of two CPU cores, 1 GB of memory and 100 MB of disk."; \
	else \
		echo "Needs about 3 minutes of two CPU cores, 1 GB of memory and 100 MB of disk; what is up to date is not run."; \
	fi
	@$(MAKE) --no-print-directory setup
	@$(BIN)/generalist run

test: setup ## the tests (some: make test TESTS=tests/test_mixing.py)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

test-long: ## the long tests: what is killed, served, searched or trained for real
	@$(MAKE) --no-print-directory test TESTS='tests -m long'

fuzz: setup ## hundreds of bad inputs for every reader: how many are handled, tracebacks and hangs (none)
	@$(BIN)/python -m tests.fuzz

check: setup ## lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict generalist pipelines
	@$(BIN)/lint-imports

serve: setup ## Prefect's server, its two deployments and MLflow's pages, until Ctrl-C
	@$(BIN)/generalist serve

table: setup ## measure the README's table of results on digits, and write it there and into the presets' headers
	@$(BIN)/python benchmarks/digits_table.py

setup: $(SETUP) ## .venv with the pinned dependencies

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null) || found="not there"; \
		echo "Generalist needs Python 3.11 or newer, and '$(PYTHON)' is $$found; name another, such as: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Setting up $(VENV) from constraints.txt; some minutes without further words."
	@echo "(On Linux, PyPI's torch brings CUDA, several GB more; its CPU build comes with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[pipelines,dev]'
	@touch $@
	@echo "$(VENV) is set up."

clean: ## remove everything that the targets above made, the registered models too
	@echo "Removing the environment, data, results, caches, and MLflow's runs and registered models:"
	@echo "  $(or $(wildcard $(MADE)),nothing is there)"
	@rm -rf $(MADE)
	@rmdir data 2>/dev/null || true
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
