# Each target builds its own environment first: nothing needs to be installed by hand but Python 3.10 or newer.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

unexport PYTHONDONTWRITEBYTECODE   # pip compiles nothing here: what is imported is compiled once, and kept

.PHONY: train test .tested lint docs bench table1 table2

train: $(READY)          ## the main job: an ODE-Net on real handwritten digits
	$(BIN)/node-train $(ARGS)

test: $(READY)           ## lint, types, all tests, a process with one thread for each core
	$(MAKE) --jobs 2 lint .tested

.tested: .venv/.bytecode # beside lint, which is one process, and waits for no core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

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

table2: $(READY)         ## Table 2 of the paper over five seeds, at most 30 minutes on two cores; the same again goes on
	$(BIN)/python benchmarks/table2.py $(ARGS)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,sweep,tune]'
	touch $(READY)

# Of all that tests import, beside the types: each process of the tests would do it again. What fails, they tell.
.venv/.bytecode: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --collect-only --quiet > /dev/null || true
	touch .venv/.bytecode

.venv/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch .venv/.docs

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch .venv/.bench
