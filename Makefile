# Everything runs in .venv, made from requirements.txt on first use. PYTHON= names the interpreter that makes it.
DATASET ?= digits
RECIPE ?= paper
SEEDS ?= 1
ARGS ?=

BIN := .venv/bin
RUN := $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help reproduce report test lint benchmark soak clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

reproduce: .venv/ready ## train, measure and report: DATASET=digits|mnist|cifar10 RECIPE=paper|fast SEEDS=1 ARGS="..."
	@$(RUN) scripts/reproduce.py dataset=$(DATASET) recipe=$(RECIPE) seeds=$(SEEDS) $(ARGS)

report: .venv/ready ## rebuild the report's page from its tables and figures, in seconds: DATASET= RECIPE=
	@$(RUN) scripts/report.py outputs/$(DATASET)/report$(if $(filter-out paper,$(RECIPE)),-$(RECIPE))

test: .venv/ready ## run the tests; ARGS="-m slow" for those that take minutes
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/ready ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

benchmark: .venv-benchmark/ready ## compare the attack's speed with other libraries'
	@PYTHONPATH=src .venv-benchmark/bin/python scripts/dev/benchmark.py $(ARGS)

soak: .venv-benchmark/ready ## other libraries' attacks against ours, 200 kills, deliberate mistakes, a million examples
	@PYTHONPATH=src .venv-benchmark/bin/python -m pytest tests/test_second_opinions.py
	@$(RUN) scripts/dev/soak.py $(ARGS)

clean: ## delete the trained networks and results, but not the committed ones
	find outputs -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +

.venv/ready: requirements.txt pyproject.toml
	@PYTHON="$(PYTHON)" scripts/dev/set_up.sh

# The peers' own environment sees .venv's torch, so that all are measured on the same one.
.venv-benchmark/ready: .venv/ready scripts/dev/benchmark_requirements.txt
	@$(RUN) -m venv --clear .venv-benchmark
	@$(RUN) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' > "$$(.venv-benchmark/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/project.pth"
	@.venv-benchmark/bin/pip install --quiet --disable-pip-version-check -r scripts/dev/benchmark_requirements.txt
	@touch $@
