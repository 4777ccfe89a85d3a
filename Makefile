# Everything a contributor or CI runs. Needs Python 3.11+, git and make; the rest goes into $(VENV).
# Variables: PYTHON=python3.13 VENV=.venv-3.13 JOBS=4 BROKER=kafka NOVA_KAFKA=host:port TIMES=10 ARGS="-k name".

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
TIMES  ?= 10
BROKER ?=
ARGS   ?=

BIN    := $(VENV)/bin
PY     := $(BIN)/python
PYTEST := $(PY) -m pytest
CODE   := $(wildcard nova tests examples benchmarks)
LINTED := $(wildcard nova tests examples benchmarks)

PROTO     := proto/nova/v1/envelope.proto
PROTO_OUT := nova/codecs/_pb

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- environment -------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.dev ## Make the virtual environment with Nova and all development tools

$(VENV)/.base:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: no '$(PYTHON)' found; Nova needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1); Nova needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet 'pip>=25.1'
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(PY) -m pip install --quiet --editable '.[all,demo]' --group dev
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: $(VENV)/.base pyproject.toml
	$(PY) -m pip install --quiet --editable '.[demo,kafka,rabbitmq,rocketmq]'
	@touch $@

# --- code --------------------------------------------------------------------------------------------------------------

.PHONY: fmt
fmt: setup ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)

.PHONY: lint
lint: setup $(if $(wildcard $(PROTO)),proto-check) ## Check rules, format, import contracts and generated code
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/lint-imports --no-logo

.PHONY: types
types: setup ## Check types with mypy --strict and pyright
	$(BIN)/mypy --strict $(CODE)
	$(BIN)/pyright --pythonpath $(PY) $(CODE)

.PHONY: proto
proto: build/proto ## Write nova/codecs/_pb anew from proto/
	mkdir -p $(PROTO_OUT)
	touch $(PROTO_OUT)/__init__.py
	cp build/proto/nova/v1/envelope_pb2.py build/proto/nova/v1/envelope_pb2.pyi $(PROTO_OUT)/

.PHONY: proto-check
proto-check: build/proto ## Fail if nova/codecs/_pb is not what proto/ generates
	@for file in envelope_pb2.py envelope_pb2.pyi; do \
	  git --no-pager diff --no-index --exit-code $(PROTO_OUT)/$$file build/proto/nova/v1/$$file || { \
	    echo "make: $(PROTO_OUT)/$$file is out of date; run 'make proto' and commit the result" >&2; exit 1; }; \
	done

.PHONY: build/proto
build/proto: setup
	@rm -rf $@ && mkdir -p $@
	@$(PY) -m grpc_tools.protoc --proto_path=proto --python_out=$@ --pyi_out=$@ $(PROTO)

# --- tests -------------------------------------------------------------------------------------------------------------

.PHONY: unit
unit: setup ## Unit tests: seconds, no network
	$(PYTEST) tests/unit -m 'not slow' $(ARGS)

.PHONY: test
test: setup ## Unit, conformance, live and docs tests
	$(PYTEST) -n $(JOBS) --dist loadgroup $(wildcard tests/unit tests/conformance tests/live tests/docs) $(ARGS)

.PHONY: brokers-up
brokers-up: setup ## Start the brokers' servers to stay; set what it prints to let tests use them
	@$(PY) -m tests.servers.kafka up
	@$(PY) -m tests.servers.rabbitmq up
	@$(PY) -m tests.servers.rocketmq up

.PHONY: brokers-down
brokers-down: setup ## Stop what brokers-up started, and drop its data
	@$(PY) -m tests.servers.kafka down
	@$(PY) -m tests.servers.rabbitmq down
	@$(PY) -m tests.servers.rocketmq down

.PHONY: stress
stress: setup ## Conformance TIMES times over, in parallel, on twice as many processes as JOBS
	@for run in $$(seq $(TIMES)); do \
	  echo "stress: run $$run of $(TIMES)"; \
	  $(PYTEST) -q -n $$((2 * $(JOBS))) --dist load tests/conformance $(ARGS) || exit 1; \
	done

.PHONY: examples
examples: setup ## Run every example as its reader would
	$(PYTEST) tests/examples $(ARGS)

.PHONY: docs
docs: setup ## Check links and run the snippets of README and docs
	$(PYTEST) tests/docs $(ARGS)

.PHONY: site
site: setup ## Build the documentation site into build/site; a warning or a dead link is an error
	$(PY) -m tests.docs.site

.PHONY: reference
reference: setup ## Write what docs/ holds of the code anew: options, schema, capabilities, topology
	$(PY) -m tests.docs.reference

.PHONY: chaos
chaos: setup ## Longer runs with SIGKILLed workers
	$(PYTEST) tests/chaos --timeout 1800 -s $(ARGS)

# --- what Nova shows ---------------------------------------------------------------------------------------------------

# A demo on a broker with servers that is not told where they are (NOVA_KAFKA, NOVA_RABBITMQ, NOVA_ROCKETMQ) starts one as brokers-up does.
ADDRESS_OF_kafka := NOVA_KAFKA
ADDRESS_OF_rabbitmq := NOVA_RABBITMQ
ADDRESS_OF_rocketmq := NOVA_ROCKETMQ
ADDRESS := $(ADDRESS_OF_$(BROKER))
NEEDS_SERVER := $(if $(ADDRESS),$(if $($(ADDRESS)),,$(BROKER)))

.PHONY: demo
demo: $(if $(NEEDS_SERVER),setup,$(VENV)/.demo) ## Load 336,776 flights into ClickHouse's engine (BROKER=... picks the broker)
	$(if $(NEEDS_SERVER),@$(PY) -m tests.servers.$(BROKER) up)
	$(if $(NEEDS_SERVER),$(ADDRESS)=$$($(PY) -m tests.servers.$(BROKER) address)) $(PY) -m examples.flights_etl $(if $(BROKER),--broker $(BROKER)) $(ARGS)

.PHONY: bench
bench: setup ## Measure Nova and its peers in one run, into docs/performance.md; ARGS="--suite ..." only prints
	$(PY) -m benchmarks $(or $(ARGS),--publish)

# --- release -----------------------------------------------------------------------------------------------------------

.PHONY: build
build: setup ## Build wheel and sdist into dist/
	rm -rf dist
	$(PY) -m build --outdir dist .

.PHONY: package
package: setup ## Build wheel and sdist, and try every extra in a clean environment
	$(PYTEST) tests/packaging $(ARGS)

.PHONY: check
check: ## All that CI runs: lint, types, site, test, examples, package
	$(MAKE) lint
	$(MAKE) types
	$(MAKE) site
	$(MAKE) test
	$(MAKE) examples
	$(MAKE) package

.PHONY: clean
clean: ## Remove what make made, the virtual environment too
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
