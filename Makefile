# Two variants live side by side: .venv has the compiled build, .venv-pure the interpreted one (EDGEQ_PURE=1).
# Tests run against the package that is installed there, not against the source tree.

PYTHON ?= python3
LISTEN ?= 127.0.0.1:8080
ARGS ?=

ifeq ($(filter-out 0,$(EDGEQ_PURE)),)
VENV ?= .venv
else
VENV := .venv-pure
endif

BIN := $(VENV)/bin
SOURCES := $(shell find edgeq -name '*.py') setup.py setup.cfg pyproject.toml

.PHONY: run test test-pure check format lint types bench bench-overload clean help

help:
	@echo "make run        install, and serve a demo at http://$(LISTEN)/"
	@echo "make test       run the tests on the compiled build (ARGS='-k name' for some of them)"
	@echo "make test-pure  the same on the interpreted build"
	@echo "make check      format, lint, types, tests"
	@echo "make bench      compare with nginx, HAProxy and Envoy, side by side"
	@echo "make bench-overload   the same gateways with more load than their upstream can take"
	@echo "make clean      remove what was built, but no environment"

run: $(VENV)/.installed
	$(BIN)/edgeq serve --demo --listen $(LISTEN)

test: $(VENV)/.installed $(VENV)/.dev
	EDGEQ_INSTALLED=1 $(BIN)/python -P -m pytest $(ARGS)

test-pure:
	EDGEQ_PURE=1 EDGEQ_REQUIRE_COMPILED=0 $(MAKE) test

check: format lint types test

format: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.installed $(VENV)/.dev
	$(BIN)/mypy

# Brings environments of its own, so that a measurement and a test never wait for each other's build.
bench:
	$(PYTHON) -m benchmarks.compare --install $(ARGS)

bench-overload:
	$(PYTHON) -m benchmarks.overload --install $(ARGS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# pip, not python, marks a finished environment: without python3-venv, a half-made one has no pip.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(BIN)/pip
	@echo "installing edgeq into $(VENV); compiling takes a minute or two"
	$(BIN)/pip install --quiet --disable-pip-version-check .
	@cat build/compiled/interpreted.txt 2>/dev/null || true
	cd / && $(abspath $(BIN))/edgeq version
	@touch $@

# The packages of the extra "dev" alone: `pip install .[dev]` would build edgeq once more.
$(VENV)/.dev: setup.cfg | $(BIN)/pip
	$(BIN)/python -c "import configparser as c; p = c.ConfigParser(); p.read('setup.cfg'); \
	print(p['options.extras_require']['dev'])" > $@.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $@.txt
	@touch $@
