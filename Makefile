# egressproxy: `make` lists the targets; each does its own set-up on a fresh Debian machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE := .venv-oracle
PEERS := .venv-bench
export PATH := $(PATH):/usr/sbin:/sbin:/usr/local/go/bin

.DEFAULT_GOAL := help
.PHONY: help venv native demo test lint format bench lock golden clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/ready ## .venv with the egressproxy command, to try things in

demo: $(VENV)/ready ## a hub-and-spoke network on this machine: real clients, allowed and refused
	@tools/setup-debian demo
	@$(BIN)/python -m lab.demo

test: $(VENV)/ready $(ORACLE)/ready lint ## everything: lint, unit, property, differential, and (as root) the lab
	@tools/setup-debian test
	$(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/ready ## ruff, mypy --strict, import layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/ready ## ruff's formatter and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

native: .native/ready ## the flow path compiled, as `pip install .` does it: a copy in .native/

bench: $(VENV)/ready $(ORACLE)/ready $(PEERS)/ready ## micro and macro benchmarks beside every peer; writes bench/out/
	@tools/setup-debian bench
	@$(MAKE) --no-print-directory native
	$(BIN)/python -m bench $(BENCH)

golden: $(VENV)/ready ## rewrite the golden files; read the diff before you commit it
	$(BIN)/python -m pytest --update-golden -k golden

lock: ## rewrite locks/ (names, versions, hashes; no hosts)
	tools/lock

clean: ## remove what the targets made
	rm -rf $(VENV) $(ORACLE) $(PEERS) .native build dist bench/out .lab .coverage* .*_cache *.egg-info

$(VENV)/ready: locks/dev.lock pyproject.toml
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  [ "$$(id -u)" -eq 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r locks/dev.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.native/ready: $(VENV)/ready setup.py pyproject.toml $(shell find egressproxy -name '*.py')
	@rm -rf .native
	EGRESSPROXY_NATIVE=1 $(BIN)/python setup.py -q build --build-lib .native
	@touch $@

# mitmproxy is an oracle of the parser tests and shares no environment with us (DESIGN: its h11 cap).
$(ORACLE)/ready: locks/oracle.lock
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/pip install -q --disable-pip-version-check --require-hashes -r locks/oracle.lock
	@touch $@

# Envoy and what draws the plots.
$(PEERS)/ready: locks/bench.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install -q --disable-pip-version-check --require-hashes -r locks/bench.lock
	@touch $@
