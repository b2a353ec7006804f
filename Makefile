# Each verb sets up what it needs in .venv. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help demo test test-all faults kills scale soak weather simulate-time teeth proofs mutants mutate-code lint types diagrams clean

help:            ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,zstd]'
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime            ## simulator + control plane + subscriber, no token; ARGS="--seconds 10"
	$(BIN)/discorder demo $(ARGS)

test: $(VENV)/.dev                ## every test on this Python; ARGS="-k name"
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

faults: $(VENV)/.dev              ## the fault cases and what each of them measured; ARGS="-k 07"
	$(BIN)/python -m pytest -q -n 2 --fault-table tests/faults $(ARGS)

test-all:                         ## unit and contract tests on every Python >= 3.11 that is installed
	@tools/test-all $(ARGS)

kills: $(VENV)/.dev               ## kill -9 at N moments (300) with crash points by name; SEED=, STORY= to repeat one
	$(BIN)/python -m tests.kills -n $(or $(N),300) $(if $(SEED),--seed $(SEED)) $(if $(STORY),--story $(STORY))

scale: $(VENV)/.dev               ## 64 shards in one process, 20 sockets reset per second for a minute; ARGS="--seconds 10"
	$(BIN)/python -m tests.endurance scale $(ARGS)

soak: $(VENV)/.dev                ## control plane and bot killed and restarted in random order; MINUTES=5
	$(BIN)/python -m tests.endurance soak --seconds $$(( $(or $(MINUTES),5) * 60 )) $(ARGS)

weather: $(VENV)/.dev             ## two minutes behind proxies that reset, cut, stall and leave half-open; ARGS="--seed 1"
	$(BIN)/python -m tests.endurance weather $(ARGS)

simulate-time: $(VENV)/.dev       ## a control plane on virtual time, with faults: SEED= and DAYS= for one run, else fresh seeds for SECONDS= (120)
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(DAYS),--days $(DAYS)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

teeth: $(VENV)/.dev               ## break the product in a copy, see what the simulation notices in SECONDS= (60) each; ARGS="--only gate"
	$(BIN)/python -m tests.simulation.teeth $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

proofs: $(VENV)/.dev              ## prove the table: static check, search, and spin (apt: spin gcc)
	$(BIN)/discorder verify --liveness

mutants: $(VENV)/.dev             ## break the table in every way, and tell which layer notices; ARGS="--only Ready"
	$(BIN)/python -m tests.table_mutants $(ARGS)

mutate-code: $(VENV)/.dev         ## break the code around the table, see what no test notices; hours, or ARGS="--sample 6 --seed 1"
	$(BIN)/python tools/mutate-code $(ARGS)

lint: $(VENV)/.dev                ## ruff (lint and format) and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev               ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

diagrams: $(VENV)/.runtime        ## draw diagrams/ anew from the table
	$(BIN)/discorder diagram -o diagrams

clean:                            ## remove what the verbs made
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
