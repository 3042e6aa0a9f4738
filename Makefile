# Two commands for a newcomer: `make bench` and `make test`. Both make the environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENA := $(BIN)/ena-bench

.PHONY: bench test check docs clean

bench: $(VENV)/ready
	$(ENA) run --report

test: $(VENV)/ready
	$(BIN)/python -m pytest -q

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

docs: $(VENV)/ready
	$(BIN)/python -c 'from bench.row import columns_markdown as c; print(c(), end="")' > docs/columns.md
	$(BIN)/python -c 'from reports.claim_text import rules_markdown as c; print(c(), end="")' > docs/claims.md

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[check]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
