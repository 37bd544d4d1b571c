# `make demo` shows Bookend at work, `make test` is what the continuous integration runs.
# Both begin with scripts/setup, which installs what is missing and is a no-op the second time.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup build demo test suites loadtest bench bench-instructions lint fmt clean

CARGO ?= cargo
PYTHON := .venv/bin/python
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where scripts/setup leaves promtool when the machine has none.
export PATH := $(PATH):$(CURDIR)/.cache/tools/usr/bin
# DEMO_EXIT=1: leave after the table. Handed on whether it comes from the command line or not.
export DEMO_EXIT

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 28

setup: ## Install what is missing (apt as root, Python packages into .venv/)
	@scripts/setup

build: ## Build target/release/bookend
	$(CARGO) build --release --locked

demo: setup ## Real Django and PostgreSQL around Bookend, driven and shown; DEMO_EXIT=1 leaves at once
	@$(PYTHON) deploy/stack/demo.py --check-ports
	@$(MAKE) build
	@exec $(PYTHON) deploy/stack/demo.py --bookend $(TARGET)/release/bookend

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

fmt: ## Format the Rust code
	$(CARGO) fmt

loadtest: ## Locust and k6 against the demo's stack, two minutes; PROFILE=long: 500 users for 10 minutes
	@scripts/setup --loadtest
	@$(MAKE) build
	@exec $(PYTHON) loadtest/loadtest.py --bookend $(TARGET)/release/bookend

# The Python half comes first, so that what cargo says stands at the end. The load test takes the program that cargo has
# built for its tests, and a p95 that a debug build on a busy machine keeps.
test: ## Everything: formatting, clippy, sample project, unit, integration and end-to-end tests, a short load test
	@scripts/setup --test --loadtest
	@$(MAKE) lint
	cd deploy/arena && ../../$(PYTHON) manage.py check --fail-level WARNING
	cd deploy/arena && ../../$(PYTHON) -W ignore manage.py makemigrations --check --dry-run
	$(PYTHON) -m unittest discover --start-directory deploy/stack
	$(PYTHON) -m unittest discover --start-directory loadtest/tests --top-level-directory loadtest
	@mkdir -p $(TARGET)
	@status=0; \
		$(CARGO) test --locked --no-fail-fast 2>&1 | tee $(TARGET)/test.log || status=$$?; \
		LOADTEST_MAX_P95_MS=3000 $(PYTHON) loadtest/loadtest.py --bookend $(TARGET)/debug/bookend --profile short --seconds 16 \
			2>&1 | tee $(TARGET)/loadtest.log || status=$$?; \
		echo; echo "--- all of it again, in short"; \
		grep -E '^ +(Running|Doc-tests) |^test result: |^test .* FAILED$$|^error' $(TARGET)/test.log || true; \
		grep -E '^  (ok  |FAIL)  |^loadtest: ' $(TARGET)/loadtest.log || true; \
		exit $$status

# Their sources come from PyPI. Not part of `make test`: it takes half an hour.
suites: ## Drivers' and Django's own tests without the pool and through it; SUITE=asyncpg runs one
	@scripts/setup --suites
	$(CARGO) build --locked --bin bookend
	@exec .cache/suites/bin/python tests/suites/run.py --bookend $(TARGET)/debug/bookend $(addprefix --suite ,$(SUITE))

# Root, because the peers run in a chroot. loadtest/bench.py says what becomes of a run; ROUNDS, SECONDS and PROGRAMS make a
# part of it, as CASES does.
bench: ## Bookend beside its peers, under 45 minutes, as root; CASES=http-small,pg-select runs a part
	@scripts/setup --loadtest
	@loadtest/peers/install
	@$(MAKE) build
	@exec .cache/peers/venv/bin/python loadtest/bench.py --bookend $(TARGET)/release/bookend --cases "$(CASES)" \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PROGRAMS),--programs "$(PROGRAMS)")

bench-instructions: ## Instructions of one HTTP request and one transaction, counted by callgrind; wants valgrind
	@scripts/setup
	@$(MAKE) build
	@exec $(PYTHON) loadtest/instructions.py --bookend $(TARGET)/release/bookend

clean: ## Remove all that was built, cached or installed here
	rm -rf $(TARGET) .cache .venv
