# `make demo` to see it, `make check test` before a commit. PYTHON3 chooses the interpreter of .venv (3.11 or 3.12).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := demo
.PHONY: install install-dev demo check check-code check-site check-global openapi baseline test test-long bench bench-long bench-growth bench-memory bench-startup lock audit clean

PYTHON3 ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
UV ?= uv
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet install --no-deps

# `make test PG=16` runs on the other embedded PostgreSQL.
ifdef PG
export INVENTORY_POSTGRES_MAJOR := $(PG)
endif

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(PYTHON):
	@$(PYTHON3) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo \
	  "$(PYTHON3) is not Python 3.11 or 3.12: make $(MAKECMDGOALS) PYTHON3=/path/to/python3.11 (or 3.12)" >&2; exit 1; }
	@$(PYTHON3) -m venv $(VENV) || { rm -rf $(VENV); echo "Debian has this in the package python3-venv." >&2; exit 1; }

$(VENV)/.installed: requirements.lock pyproject.toml | $(PYTHON)
$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(PYTHON)
$(VENV)/.installed $(VENV)/.installed-dev:
	@echo "Installing $< into $(VENV)"
	@$(PIP) --require-hashes -r $<
	@$(PIP) --no-build-isolation -e .
	@touch $@

demo: install
	@$(PYTHON) manage.py demo $(if $(FILES),--files "$(FILES)") $(ARGS)

check: check-code check-site check-global

check-code: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/lint-imports

check-site: package := site_service
check-global: package := global_inventory
# No server is needed: makemigrations only warns that it cannot compare with the history of a database.
check-site check-global: check-%: install-dev
	INVENTORY_ROLE=$* $(PYTHON) manage.py check --fail-level WARNING
	INVENTORY_ROLE=$* $(PYTHON) -W 'ignore:Got an error checking:RuntimeWarning' manage.py makemigrations --check --dry-run
	INVENTORY_ROLE=$* $(PYTHON) manage.py spectacular --validate --fail-on-warn | diff -u $(package)/openapi.yaml - \
	  || { echo "$(package)/openapi.yaml is not what the code says: make openapi" >&2; exit 1; }

openapi: install-dev
	INVENTORY_ROLE=site $(PYTHON) manage.py spectacular --validate --fail-on-warn --file site_service/openapi.yaml
	INVENTORY_ROLE=global $(PYTHON) manage.py spectacular --validate --fail-on-warn --file global_inventory/openapi.yaml

# The schema of a new inventory, after a change of migrations.
baseline: install-dev
	$(PYTHON) -m tests.baseline

# More processes than cores: tests wait for disks, servers and each other.
test: install-dev
	$(BIN)/pytest -n 3 --dist loadgroup -m "not long" $(ARGS)

test-long: install-dev
	$(BIN)/pytest -n 2 --dist loadgroup -m long $(ARGS)

bench: install-dev
	$(PYTHON) -m tests.bench $(ARGS)

# Two inventories of ten million artifacts each (`ARGS="--rows 1000000"` for fewer); they need 15 GB in TMPDIR and half an hour.
bench-long: install-dev
	$(PYTHON) -m tests.bench.long $(ARGS)

# The cost of one operation with 10⁵, 10⁶ and 10⁷ artifacts (`ARGS="--rows 100000 1000000"` for fewer); 25 GB in TMPDIR and an hour.
bench-growth: install-dev
	$(PYTHON) -m tests.bench.growth $(ARGS)

# The memory of each process with files of 1 KiB and one of 10 GiB (`ARGS="--gib 2"` for a smaller one); 20 GiB in TMPDIR and some minutes.
bench-memory: install-dev
	$(PYTHON) -m tests.bench.memory $(ARGS)

# How long each process takes to be ready, started by itself (`ARGS=--cold`: also with files that are not in memory); some minutes.
bench-startup: install-dev
	$(PYTHON) -m tests.bench.startup $(ARGS)

# `make lock ARGS=--upgrade` takes new versions, `make lock` only what pyproject.toml demands.
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header --allow-unsafe $(ARGS)
HEADER := \# Made by "make lock"; installed with pip install --no-deps --require-hashes.

lock:
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock
	sed -i '1i $(HEADER)' requirements.lock requirements-dev.lock

# Known vulnerabilities of the locked packages; needs the network, and a tool of its own below build.
audit: | $(PYTHON)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --disable-pip --require-hashes -r requirements.lock $(ARGS)

# Not the data of the embedded servers and of the demo: .embedded and .demo.
clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
