# The words are the same here and in CI. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench loop faults fuzz sbom audit fmt docs

help: ## list these words
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1	/' | expand -t 10

venv: $(READY) ## make .venv with every version of requirements.lock

demo: $(READY) ## a market, signals and sizes, live; then every allocation checked (ARGS="--seconds 20")
	@$(BIN)/himari demo $(ARGS)

test: $(READY) ## all tests (ARGS="tests/engines -k kelly")
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## how fast, beside the bare loops (ARGS="--json")
	@$(BIN)/himari bench $(ARGS)

loop: $(READY) ## signals, a worker and the paper broker on Apache Kafka for ten minutes (ARGS="--seconds 60 -- --delay 5")
	@PYTHONPATH=. $(BIN)/python -m benchmarks.closed_loop --kafka $(ARGS)

faults: $(READY) ## kill and hurt workers on Apache Kafka, many times, and count (ARGS="--rounds 3 --only zombie")
	@PYTHONPATH=.:tests $(BIN)/python -m faults.campaign $(ARGS)

fuzz: $(READY) ## 100,000 payloads through ingest and the fold (ARGS="-x")
	@HIMARI_FUZZ=100000 $(BIN)/python -m pytest tests/streams/test_payloads.py -o timeout=0 $(ARGS)

sbom: $(READY) ## bill of materials, CycloneDX, of what runs: build/sbom.cdx.json
	@$(BIN)/python tools/supply.py sbom build/sbom.cdx.json

audit: $(READY) ## known vulnerabilities and licences (HIMARI_AUDIT=required fails where no service is reached)
	@$(BIN)/python tools/supply.py licences
	@$(BIN)/python tools/supply.py audit

fmt: $(READY) ## format, and fix what lint can fix
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(READY) ## write generated files again: JSON Schemas, topology, the table of metrics
	@$(BIN)/python -m schemas
	@$(BIN)/python -m streams.drawing

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed (PYTHON=…)")'
	@echo "installing into .venv (once)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@echo "compiling the loops over matrices (once)" >&2
	@$(BIN)/python -c 'from engines import aggregation; aggregation.warm()'
	@touch $(READY)
