# make help lists the targets. Each does the set-up it needs by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI,PYTEST_ADDOPTS)

# --- the data plane -----------------------------------------------------------
CLANG := clang-16
CLANG_FORMAT := clang-format-16
BPF_FLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter \
	-I/usr/include/$(shell uname -m)-linux-gnu -Ibpf
BPF_DIR := src/xlvs/dataplane/objects
BPF_OBJECTS := $(patsubst bpf/%.c,$(BPF_DIR)/%.o,$(wildcard bpf/*.bpf.c))
C_TEXTS = $(shell find bpf bench tests/netns -name "*.[ch]")

.PHONY: help setup bpf demo test quick lint format bench wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## install Debian packages, make .venv with xlvs in it, compile bpf/ (idempotent)
	@scripts/setup
	@$(MAKE) bpf

bpf: $(BPF_OBJECTS) ## compile bpf/ only
	@:

$(BPF_DIR)/%.bpf.o: bpf/%.bpf.c Makefile
	@mkdir -p $(BPF_DIR) build/bpf
	@echo "bpf: $< -> $@"
	@$(CLANG) $(BPF_FLAGS) -MMD -MP -MT $@ -MF build/bpf/$*.d -c $< -o $@

-include $(wildcard build/bpf/*.d)

# --- using it -----------------------------------------------------------------
demo: setup ## watch requests being spread over real nginx servers by NAT, DR, TUN and FULLNAT
	@$(ROOT) $(VENV)/xlvs demo

bench: setup ## packets per second and nanoseconds per packet, against nftables and bare XDP
	@$(ROOT) $(VENV)/python -m bench

# --- checking it --------------------------------------------------------------
test: setup ## every test: unit, packet, abi, netns, interop, conformance
	@$(ROOT) $(VENV)/pytest

quick: setup ## the tests of a minute: no guest, nothing slow
	@$(ROOT) $(VENV)/pytest -m 'not guest and not slow' tests/unit tests/packet tests/abi

lint: setup ## ruff, mypy --strict, clang-format
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(CLANG_FORMAT) --dry-run -Werror $(C_TEXTS)
	@echo "lint: clean"

format: setup ## lay out Python and C as lint wants them
	@$(VENV)/ruff check --fix --quiet . || true
	@$(VENV)/ruff format .
	@$(CLANG_FORMAT) -i $(C_TEXTS)

wheel: setup ## build dist/xlvs-*.whl with the BPF objects inside
	@$(VENV)/pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir dist .
	@ls dist

clean: ## remove everything that make made, .venv included
	@$(ROOT) rm -rf .venv build dist $(BPF_DIR) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@$(ROOT) find . -name __pycache__ -type d -prune -exec rm -rf {} +
