# Holdfast's build. `make demo` shows what it is for; `make test` is what CI runs. Needs Python 3.11 with venv, and make.
#
# PYTHON   the interpreter that the virtual environment is made from
# TORCH    the one dependency that is pinned here: the embedded engine promises equal tokens from equal builds
# SITE     the settings file of `make up`; empty means holdfast.toml here if there is one, else all defaults

PYTHON ?= python3
TORCH ?= torch==2.13.0
SITE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo up test check servers clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    30 seconds of killing replicas under load; every answer is checked token for token'
	@echo 'make up      a site with the shipped model on http://127.0.0.1:8000 (SITE=my.toml for your own settings)'
	@echo 'make test    everything that CI runs'
	@echo 'make check   the quick part: ruff, mypy, floors, house rules'
	@echo 'make clean   remove what make made'

demo: $(VENV)/.embedded
	@$(BIN)/holdfast demo

up: $(VENV)/.embedded
	@$(BIN)/holdfast up $(SITE)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/test_house.py

test: check servers
	$(BIN)/python -m pytest

# The real servers and clients that tests use. Without the rights to install them their tests are skipped, and say so.
servers:
	@missing=; command -v redis-server >/dev/null || missing=redis-server; \
	  PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || missing="$$missing nginx-light"; \
	  command -v openssl >/dev/null || missing="$$missing openssl"; \
	  command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	  [ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } \
	  || echo "$$missing: not installed, and can not be from here: their tests are skipped (apt install $$missing)"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench training -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'Holdfast needs Python 3.11 or newer; "$(PYTHON)" is not. On Debian 12: apt install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'This Python can not make virtual environments. On Debian and Ubuntu: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, and the rest is then held to the build that came: no other package may replace it.
$(VENV)/.torch: | $(BIN)/python
	$(PIP) install '$(TORCH)'
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $@

$(VENV)/.embedded: pyproject.toml $(VENV)/.torch
	$(PIP) install --constraint $(VENV)/.torch --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.embedded
	$(PIP) install --constraint $(VENV)/.torch --editable '.[embedded,dev]'
	@touch $@
