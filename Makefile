# make demo: the first ablation in some minutes.  make test: all tests.  make notebooks: runs them for their pages.
# Each makes the environment that it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint notebooks clean

demo: .venv/installed
	$(BIN)/python -m src.demo

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/build.py --render

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
