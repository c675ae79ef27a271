# labbridge: everything a fresh clone needs, and nothing outside .venv is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: browser screenshots fuzz help run test lint bench performance torture faults clean conformance pages
help:            ## this list
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labbridge needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: .venv/ready ## the daemon with its console, simulated analyzers and hospital; prints the address and accounts to log in with (Ctrl-C ends it)
	@mkdir -p run
	@test -e run/labbridge.toml || cp config.example.toml run/labbridge.toml
	$(BIN)/labbridge run --simulate -c run/labbridge.toml

lint: .venv/ready ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

browser: .venv/ready ## a Chromium and a Chinese font for the tests of the console, where this user may install them
	$(BIN)/python -m tests.browser

test: .venv/ready lint browser ## lint, all tests with coverage, the coverage floors
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $${WORKERS:-3} --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95 --include='labbridge/wire/*,labbridge/formats/*,labbridge/mapping*,labbridge/context.py,labbridge/pipeline.py' --skip-covered
	$(BIN)/coverage report --fail-under=90 --skip-covered --sort=cover | tail -n 30

screenshots: .venv/ready browser ## a picture of each page of the console, in both languages, into docs/images
	$(BIN)/python -m tests.console.screenshots

conformance: .venv/ready ## the tests of what the standards demand, row by row; writes docs/conformance.md
	$(BIN)/python -m tests.conformance.plugin -n 2

pages: .venv/ready ## writes docs/analyzers.md from the profiles
	$(BIN)/python -m tests.analyzers_page

faults: .venv/ready ## every named fault alone, then all mixed five times as long (SECONDS=60 CONNECTIONS=20 SEED=n); prints a table
	$(BIN)/python -m tests.faults --fault each --seconds $(or $(SECONDS),60) --connections $(or $(CONNECTIONS),20) --seed $(or $(SEED),0)

fuzz: .venv/ready ## ten minutes of bytes that try to stop a reader (SECONDS_EACH=50)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz

torture: .venv/ready ## every class of torture, and what finds the planted mistakes; writes docs/evidence/torture.md (SEED=n; goes on where it was interrupted)
	$(BIN)/python -m tests.torture all --seed $${SEED:-0}

bench: .venv/ready ## W1 and W2 through to the acknowledged delivery, beside their floors and peers: a quick table
	$(BIN)/python benchmarks/bench.py

performance: .venv/ready ## every measurement, 85 minutes and 20 GB of disk; writes docs/performance.md and its pictures (RUNS=3)
	$(BIN)/python benchmarks/performance.py --runs $(or $(RUNS),3)

clean:           ## removes the environment and what tests leave
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* dist
