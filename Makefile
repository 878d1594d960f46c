# What a person types. Every target sets up what it needs; see onebox/setup.sh.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SECONDS ?=
SMALL ?=
RUN_DIR ?= run/demo
PYTHON := .venv/bin/python

.PHONY: help setup demo check test test-all faults fuzz bench molecule molecule-all lock clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install everything this machine needs (Debian 12 or 13, root or sudo)
	@bash onebox/setup.sh

demo: setup ## A whole ward on this machine; Ctrl-C ends it, SECONDS=60 ends by itself
	@.venv/bin/healthsync onebox demo --run-dir $(RUN_DIR) $(if $(SECONDS),--seconds $(SECONDS))

check: setup ## Lint, types, import contracts, shell scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	git ls-files '*.sh' | xargs shellcheck --severity=style
	shellcheck --severity=style --shell=bash .ci/run
	@bash ansible/setup.sh --without-podman
	bash ansible/lint.sh

test: setup ## All tests: units, the validator, the real path on one machine, a gateway in a container
	@bash ansible/setup.sh --without-podman
	$(PYTHON) -m pytest
	@bash ansible/molecule/run.sh --if-possible edge

test-all: check test faults fuzz molecule-all ## Everything, the long suites too

faults: setup ## Power cuts at every sector, kills, 5,000 idle connections, 20,000 histories, 10,000 resources
	HEALTHSYNC_FAULT_BYTES=100000000 HEALTHSYNC_KILLS=30 HEALTHSYNC_IDLE_CONNECTIONS=5000 \
	  HEALTHSYNC_DELAY_S=0.1 $(PYTHON) -m pytest tests/edge/test_power_cut.py \
	  tests/edge/test_salvage.py tests/edge/test_salvage_pages.py tests/edge/test_hostile.py
	HEALTHSYNC_SESSION_EXAMPLES=20000 $(PYTHON) -m pytest tests/session
	HEALTHSYNC_DETECT_KILLS=200 HEALTHSYNC_HISTORIES=2000 $(PYTHON) -m pytest \
	  tests/cloud/detect/test_engine_kafka.py tests/cloud/detect/test_partition.py
	HEALTHSYNC_VALIDATOR_RANDOM=10000 $(PYTHON) -m pytest tests/validator
	HEALTHSYNC_LINK_KILLS=40 HEALTHSYNC_LINK_CUTS=120 \
	  $(PYTHON) -m pytest tests/system/test_uplink_faults.py

fuzz: setup ## A million damaged inputs for each device protocol
	$(PYTHON) -m bench.fuzz

bench: setup ## The gateway's and the uplink's numbers beside rsyslog's, the streams' beside Kafka Streams
	$(PYTHON) -m bench.edge
	$(PYTHON) -m bench.uplink
	$(PYTHON) -m bench.streams $(if $(SMALL),--small)
	$(PYTHON) -m bench.firewall

molecule: ## Provision containers as a site would, twice, and use them as a technician would
	@bash ansible/molecule/run.sh edge

molecule-all: setup ## The other scenarios too: the firewall's role, the cloud's hosts, an upgrade
	@bash ansible/molecule/run.sh edge firewall cloud-single cloud-cluster upgrade

lock: setup ## Make the hash-locked requirement files anew
	bash requirements/lock.sh

clean: ## Remove what setup and runs made in this folder
	rm -rf .venv .tools run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
