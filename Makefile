# Two commands for a newcomer: `make up` and `make test`. `make help` lists the rest.
SHELL  := /bin/sh
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TRAIN_VENV := .venv-train
PROTOS := $(shell find protos -name '*.proto')
OURS   := $(shell find protos/tradebot -name '*.proto')
CODE   := services simulator gateway local markets tests bench

.DEFAULT_GOAL := help
.PHONY: help setup gen up demo proof test train evaluate faults interop check fmt lock bench clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: setup ## Set up and run the whole system until Ctrl-C (TRADEBOT_PORT, TRADEBOT_DATA)
	@exec $(BIN)/python -m local.up

demo: setup ## Three users trade at once, checked against the simulator's ledger
	@exec $(BIN)/python -m local.demo

proof: setup ## Bots earn on mean-reverting markets and hold on random walks, through the gateway (about 8 minutes)
	@exec $(BIN)/python -m local.proof $(ARGS)

test: setup check ## Static checks and every test, each slow suite in its small form (< 10 minutes)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: setup ## The proof in its big form: thousands of simulated worlds, rolling restarts, everything breaks thirty times under load (hours)
	$(BIN)/pytest -m hypothesis --hypothesis-profile explore tests/unit
	$(BIN)/pytest -m faults --log-cli-level=INFO tests/faults

check: setup ## Format, lint, types, protos, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	@if git rev-parse -q --verify origin/main >/dev/null 2>&1; then $(BIN)/buf breaking --against '.git#ref=origin/main'; \
	 elif git rev-parse -q --verify HEAD~1 >/dev/null 2>&1; then $(BIN)/buf breaking --against '.git#ref=HEAD~1'; fi
	$(BIN)/lint-imports

fmt: setup ## Format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w --exclude-path protos/google

interop: setup ## Community clients, unmodified but for the host, trade on the simulator (about 5 minutes)
	$(BIN)/pytest tests/interop tests/contract/connector -m interop_full -s

bench: setup ## Benchmarks, each beside its baseline
	$(BIN)/python -m bench

train: $(TRAIN_VENV)/.installed ## Train and publish the models (about 10 minutes; ARGS="edge" for one of them)
	OMP_NUM_THREADS=1 $(TRAIN_VENV)/bin/python -m training $(ARGS)

evaluate: $(TRAIN_VENV)/.installed ## Judge the published models and write their cards (ARGS="--seed 7 --print-only")
	OMP_NUM_THREADS=1 $(TRAIN_VENV)/bin/python -m training.evaluation $(ARGS)

lock: setup ## Resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --extra local --extra dev --python-version 3.11 pyproject.toml -o requirements.lock

clean: ## Remove the environment, generated code and all local state
	rm -rf $(VENV) $(TRAIN_VENV) gen .data

setup: $(VENV)/.installed gen/.generated ## Install the environment and generate the stubs (done by every target)

gen: gen/.generated ## Generate Python stubs and Envoy's descriptor from protos/

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once per lock file)"
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("tradebot needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# torch comes first and alone: asked for by others, pip may take a build for graphics cards. mlfinpy is a data file here.
$(TRAIN_VENV)/.installed: requirements-train.txt
	@echo "setting up $(TRAIN_VENV) (once per list)"
	@test -x $(TRAIN_VENV)/bin/python || $(PYTHON) -m venv $(TRAIN_VENV)
	@$(TRAIN_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(TRAIN_VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-train.txt
	@$(TRAIN_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps mlfinpy==0.1.2
	@touch $@

gen/.generated: $(VENV)/.installed $(PROTOS)
	@echo "generating stubs from protos/"
	@rm -rf gen && mkdir -p gen
	@PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=gen --grpc_python_out=gen \
	  --mypy_out=quiet:gen --mypy_grpc_out=quiet:gen $(OURS)
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports --descriptor_set_out=gen/tradebot.binpb $(OURS)
	@touch $@
