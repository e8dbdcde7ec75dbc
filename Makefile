# Each target builds its own environment first: nothing needs to be installed by hand but Python 3.10 or newer.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test lint docs bench table1

train: $(READY)          ## the main job: an ODE-Net on real handwritten digits
	$(BIN)/node-train $(ARGS)

test: lint               ## lint, types, all tests, a process with one thread for each core
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.docs        ## the documentation as a site in build/site; a warning is an error (Python 3.11 or newer)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/.bench      ## the engine against its peers, as ratios; ARGS="spiral --rounds 15 --save"
	$(BIN)/python -m benchmarks.engine $(ARGS)

table1: $(READY)         ## Table 1 of the paper over five seeds; ARGS="dataset=mnist"; the same again goes on
	$(BIN)/python benchmarks/table1.py $(ARGS)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,sweep,tune]'
	touch $(READY)

.venv/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch .venv/.docs

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch .venv/.bench
