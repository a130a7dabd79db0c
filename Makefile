# make demo    a robot learns from 100 answers, in minutes; ends with a table, a plot and a video
# make test    the fast tests
# make check   lint, format, types, import layers
#
# Each sets up all it needs in .venv/ first. A second call finds it done.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: demo test test-slow test-gpu test-ui check format clean setup

ENV := .venv
BIN := $(ENV)/bin
# Much of the tests' time is waiting for processes to start: two files at a time. `make test PARALLEL=` runs one after the other.
PARALLEL := -n 2 --dist loadfile
# The threads of torch and NumPy, so that processes do not fight over cores.
export OMP_NUM_THREADS := 1

demo: $(ENV)/.ready
	$(BIN)/rayrlhf train quickstart $(ARGS)

test: $(ENV)/.ready
	.ci/packages postgresql
	$(BIN)/python -m pytest $(PARALLEL) --durations=25 $(ARGS)

test-slow: $(ENV)/.ready
	.ci/packages postgresql
	$(BIN)/python -m pytest -m slow $(ARGS)

test-gpu: $(ENV)/.ready
	$(BIN)/python -m pytest -m gpu $(ARGS)

test-ui: $(ENV)/.ready
	.ci/packages chromium
	$(BIN)/python -m pytest -m ui $(ARGS)

check: $(ENV)/.ready
	$(BIN)/ruff check rayrlhf tests examples scripts
	$(BIN)/ruff format --check rayrlhf tests examples scripts
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(ENV)/.ready
	$(BIN)/ruff check --fix rayrlhf tests examples scripts
	$(BIN)/ruff format rayrlhf tests examples scripts

setup: $(ENV)/.ready

$(ENV)/.ready: pyproject.toml .ci/setup
	.ci/setup $(ENV)

clean:
	rm -rf $(ENV) dist build .mypy_cache .ruff_cache .pytest_cache
