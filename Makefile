# make demo   the whole road on real data, set-up included
# make test   lint, strict types, layers, every test: what CI runs
# make quick  the tests that take no time
# make soak   the long runs: killed processes, functions under load, fuzzing
# make bench  ratios against the bare libraries; bench-quick: few rows, under a minute; bench-serving: endpoints beside other servers
# make venv   just the environment, in .venv; make venv GPU=1 takes the GPU builds

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
EXTRAS := $(if $(GPU),gpu,cpu),pandas,tune,sql,postgres,torch,text,spark,kubernetes,grpc,notebook,dev
STAMP := .venv/ready-$(if $(GPU),gpu,cpu)

# tests start hundreds of Python processes: each compiles all of it anew where it may not keep what it compiled
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick soak bench bench-quick bench-serving venv lint clean

demo: $(STAMP)
	$(BIN)/python -m sqlml.demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(STAMP)
	$(BIN)/python -m tests.soak

bench: $(STAMP)
	$(BIN)/python -m tests.bench

bench-quick: $(STAMP)
	$(BIN)/python -m tests.bench --quick

bench-serving: $(STAMP)
	$(BIN)/python -m tests.bench serving

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "sqlml needs Python 3.11 or newer"; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m compileall -q sqlml dialect/sqlml_dialect runners/sqlml_runners udfs/sqlml_udfs
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
