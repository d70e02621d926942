# The first target that needs it makes .venv; nothing outside of it is touched.
# Another Python: make test PYTHON=python3.12        Some tests: make test PYTEST_ARGS="-k worker"
PYTHON ?= python3
PYTEST_ARGS ?=
# Heads and models for the benchmark; without them it is a quick trial: make benchmark BENCHMARK_ARGS="--eps 8"
DATA ?= $(wildcard ../shared/data)
BENCHMARK_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
EXTRAS := report,dicom,deepbet,train,bench,test

.PHONY: demo test lint benchmark

demo: $(READY)
	$(BIN)/medshield demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmark: $(READY)
	$(BIN)/medshield benchmark $(if $(DATA),--data $(DATA),--quick) $(BENCHMARK_ARGS)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("MedShield needs Python 3.10 or newer: make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(READY)
