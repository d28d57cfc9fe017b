# Everything a developer, a newcomer and CI run. With only python3 (3.11 to 3.13) and make:
#
#   make launch STUDY=lr_sched    set up, then train a study and show what came of it
#   make test                     set up with the test extra, then run all tests
#   make test-fast                the short tests that start no program: for every small change
#   make durations                all tests; then tests/long.txt is rewritten
#   make golden                   rewrite tests/golden/expected after an intended change of an output
#   make check                    format, lint, types, import contracts
#   make calibration              how often verdicts are wrong, by simulation (15 to 60 minutes); some lines:
#   make calibration ARGS="--only null --line patients --studies 400"
#   make bench                    tuner beside what one would use instead (about 45 minutes)
#   make gpu                      tests and speed of trainer and packs on the first GPU (some minutes)
#   make storm                    studies under kills, freezes and restarts (about 15 minutes)

PYTHON ?= python3
STUDY ?= lr_sched
VENV := .venv
BIN := $(VENV)/bin
# Four on two cores: tests that start programs wait for them more than half of the time.
PROCESSES ?= 4
PARALLEL := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: setup setup-test launch test test-fast durations golden check format storm calibration bench gpu docs coverage clean

setup: $(VENV)/.installed

setup-test: $(VENV)/.installed-test

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "tuner needs Python 3.11 to 3.13; this is %d.%d. Name another: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 lacks venv; on Debian: apt install python3-venv"; \
	  rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing tuner into $(VENV) (torch is large: a few minutes and 6 GB the first time)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

launch: setup
	@$(BIN)/tuner launch $(STUDY)

test: setup-test
	@$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup-test
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not processes and not long"

durations: setup-test
	@$(BIN)/python -m pytest $(PARALLEL) --durations=0 --durations-min=0.05 \
	  | tee /dev/stderr | $(BIN)/python -m tests.harness.durations

golden: setup-test
	@GOLDEN=write $(BIN)/python -m pytest -q tests/golden

coverage: setup-test
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m pytest --cov --cov-report= $(PARALLEL)
	@$(BIN)/python -m coverage report --fail-under 90

check: setup-test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup-test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

storm: setup-test
	@$(BIN)/python -m benchmarks.storm

calibration: setup-test
	@$(BIN)/python -m benchmarks.calibration $(ARGS)

bench: setup-test
	@$(PIP) --editable '.[bench]'
	@for part in study coordination answer start trainer packs; do \
	  $(BIN)/python -m benchmarks.$$part --record || exit 1; done
	@$(BIN)/python -m benchmarks.tables

gpu: setup-test
	@$(BIN)/python -m pytest tests/train/test_gpu.py
	@$(BIN)/python -m benchmarks.gpu --members 16 64

docs: setup-test
	@$(BIN)/python -m tuner.spec.schema > docs/study-file.schema.json
	@$(BIN)/python -m tuner.spec.reference docs/study-file.md objectives.chest_xray objectives.digits
	@$(BIN)/python -m tuner.cli.reference > docs/cli.md
	@$(BIN)/python -m tuner.answers.columns > docs/columns.md

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage*
