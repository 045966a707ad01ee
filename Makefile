# SPDX-License-Identifier: Apache-2.0
# Every target prepares what it needs; a second run uses it again.
PYTHON := .venv/bin/python
# One process per core; each starts its own API servers.
ABREAST := --numprocesses auto --dist worksteal
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test test-all lint conventions matrix unit integration soak e2e molecule bench report cluster clean-cluster setup lock

demo: setup            ## the main job on a real cluster: from nothing to a pod in its range
	$(PYTHON) tests/cluster up
	$(PYTHON) tests/e2e/demo.py

test: setup lint conventions ## all tests
	$(PYTHON) -m pytest tests/unit tests/integration $(ABREAST) --durations 15
	$(PYTHON) tests/cluster up
	$(PYTHON) -m pytest tests/e2e --durations 6
	$(PYTHON) tests/scenarios.py default

test-all: test matrix molecule ## and the slow ones, with every supported version, and all scenarios
	$(PYTHON) -m pytest tests/unit tests/integration -m slow $(ABREAST)
	$(PYTHON) -m pytest tests/e2e -m slow

lint: setup            ## style
	ruff check .
	ruff format --check .
	ansible-lint

conventions: setup     ## ansible-test sanity, Galaxy's importer, the documentation's build, licences
	$(PYTHON) tests/conventions

matrix: setup          ## sanity and the modules' tests with every supported version of Ansible and of the libraries
	$(PYTHON) tests/conventions matrix

unit: setup            ## tests without a cluster
	$(PYTHON) -m pytest tests/unit $(ABREAST)

integration: setup     ## tests against an API server without nodes
	$(PYTHON) -m pytest tests/integration $(ABREAST)

soak: setup            ## 100,000 requests to one agent, which must neither lose an address nor grow
	SOAK_REQUESTS=$${SOAK_REQUESTS:-100000} $(PYTHON) -m pytest tests/integration/agent/test_soak.py --capture no

e2e: setup             ## user stories on the kind cluster
	$(PYTHON) tests/cluster up
	$(PYTHON) -m pytest tests/e2e

molecule: setup        ## the role on a fresh kind cluster, by Molecule: all scenarios that this machine can run
	$(PYTHON) tests/cluster down
	$(PYTHON) tests/cluster up
	$(PYTHON) tests/scenarios.py

bench: setup           ## figures, with the peers beside them
	$(PYTHON) tests/bench

report: setup          ## docs/performance.md and its pictures, from new figures
	$(PYTHON) tests/bench --figures docs/performance/figures.json
	$(PYTHON) tests/bench/report.py docs/performance/figures.json

cluster: setup         ## the test cluster alone
	$(PYTHON) tests/cluster up

clean-cluster: setup   ## nothing running, nothing mounted
	$(PYTHON) tests/cluster clean

setup:
	@tests/bootstrap

lock: setup            ## new versions of everything in requirements/
	for name in build cross node pip dev conventions core-2.18 core-2.19; do \
	    uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --no-header \
	        requirements/$$name.in --output-file requirements/$$name.txt; \
	done
	for name in core-2.20; do \
	    uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.12 --no-header \
	        requirements/$$name.in --output-file requirements/$$name.txt; \
	done
