# Each verb sets up what it needs in .venv. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

# Some environments forbid compiled modules; the tests import each module in many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help bench bench-quick demo check test suites test-all faults kills buses compare scale soak weather simulate-time sabotage proofs mutants mutate-code lint types reference diagrams client screenshots clean

help:            ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

$(BIN)/python:
	@echo "Setting up: a Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up: discorder and the libraries it needs, into $(VENV) (once; up to a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up: discorder with its tools for tests and diagrams, into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,diagrams,speed,zstd]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.discordpy: constraints.txt | $(VENV)/.runtime
	@echo "Setting up: discord.py, into $(VENV) (once; some seconds)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt discord.py
	@touch $@

demo: $(VENV)/.runtime $(if $(findstring --bot,$(ARGS)),$(VENV)/.discordpy) ## a cut connection is resumed, nothing is lost: 20 seconds, no token; ARGS="--bot" kills a bot of discord.py instead
	@$(BIN)/discorder demo $(ARGS)

check: lint                       ## before each commit: lint, mypy, unit and contract tests without heavy ones; ARGS="-k name"
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 -m "not (system or slow or suite or heavy)" $(ARGS)

test: $(VENV)/.dev                ## every test on this Python but the suites below and heavy ones; ARGS="-k name"
	$(BIN)/python -m pytest -q -n 2 -m "not (slow or suite or heavy)" $(ARGS)

suites: $(VENV)/.dev              ## faults, kills, endurance, proofs, virtual time and heavy tests, with small fixed budgets
	$(BIN)/python -m pytest -q -n 3 -m "(suite or heavy) and not slow" --fault-table --check-model $(ARGS)
	$(BIN)/python -m pytest -q -n 2 -m "not (slow or suite or heavy)" --check-model tests/shard tests/test_recorded_sessions.py

faults: $(VENV)/.dev              ## the fault cases and what each of them measured; ARGS="-k 07"
	$(BIN)/python -m pytest -q -n 2 --fault-table tests/faults $(ARGS)

test-all:                         ## unit and contract tests on every Python >= 3.11 that is installed
	@tools/test-all $(ARGS)

kills: $(VENV)/.dev               ## kill -9 at N moments (300) with crash points by name, of a façade with two bots too; SEED=, STORY= to repeat one
	$(BIN)/python -m tests.kills -n $(or $(N),300) $(if $(SEED),--seed $(SEED)) $(if $(STORY),--story $(STORY))

buses: $(VENV)/.dev               ## brokers (nats-server) and control planes are killed, frozen and restarted; N=3, SEED=, ARGS="--only nats"
	$(BIN)/python -m tests.buses -n $(or $(N),3) $(if $(SEED),--seed $(SEED)) $(ARGS)

scale: $(VENV)/.dev               ## 64 shards in one process, 20 sockets reset per second for a minute; ARGS="--seconds 10"
	$(BIN)/python -m tests.endurance scale $(ARGS)

soak: $(VENV)/.dev                ## control plane and bot killed and restarted in random order; MINUTES=5
	$(BIN)/python -m tests.endurance soak --seconds $$(( $(or $(MINUTES),5) * 60 )) $(ARGS)

weather: $(VENV)/.dev             ## two minutes behind proxies that reset, cut, stall and leave half-open; ARGS="--seed 1"
	$(BIN)/python -m tests.endurance weather $(ARGS)

compare: $(VENV)/.dev             ## the control plane and three libraries under the same faults: who loses how much; ARGS="--only restart"
	$(BIN)/python -m tests.compare $(ARGS)

bench: $(VENV)/.dev               ## measure whole processes beside other gateway clients, write docs/performance/; ARGS="--only live"
	$(BIN)/python -m tests.bench $(ARGS)

bench-quick: $(VENV)/.dev         ## CPU per event beside a bare loop, under a minute; fails above a ratio
	$(BIN)/python -m tests.bench --quick

simulate-time: $(VENV)/.dev       ## a control plane on virtual time, with faults: SEED= and DAYS= for one run, else fresh seeds for SECONDS= (120)
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(DAYS),--days $(DAYS)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

sabotage: $(VENV)/.dev               ## break the product in a copy, report what the simulation notices in SECONDS= (60) each; ARGS="--only gate"
	$(BIN)/python -m tests.simulation.sabotage $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

proofs: $(VENV)/.dev              ## prove the table: static check, search, and spin (apt: spin gcc); ARGS="--only recovery"
	$(BIN)/discorder verify --liveness $(ARGS)

mutants: $(VENV)/.dev             ## break the table in every way, and report which layer notices; ARGS="--only Ready"
	$(BIN)/python -m tests.table_mutants $(ARGS)

mutate-code: $(VENV)/.dev         ## break the code around the table, report what no test notices; hours, or ARGS="--sample 6 --seed 1"
	$(BIN)/python tools/mutate_code.py $(ARGS)

lint: $(VENV)/.dev                ## ruff (lint and format) and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev               ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

reference: $(VENV)/.dev           ## write docs/configuration.md, docs/commands.md and docs/metrics.md from the schema, the command line and the metrics
	$(BIN)/python tools/reference.py

diagrams: $(VENV)/.dev            ## draw diagrams/ from the table
	$(BIN)/discorder diagram -o diagrams

client: $(VENV)/.runtime          ## build dist/discorder_client-….whl, the small package for bots
	$(BIN)/python tools/build_client.py

screenshots: $(VENV)/.dev         ## take the pictures of the status page in docs/pictures/, in Chromium
	$(BIN)/python -m tests.http.screenshots

clean:                            ## remove what the verbs created
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
