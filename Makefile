# Two variants live side by side: .venv has the compiled build, .venv-pure the interpreted one (EDGEQ_PURE=1).
# Tests run against the package that is installed there, not against the source tree.

PYTHON ?= python3
LISTEN ?= 127.0.0.1:8080
ADMIN ?= /tmp/edgeq.sock
ARGS ?=
# Tests mostly wait, for processes to start and for time-outs, so several run at once, file by file.
AT_ONCE ?= 2
PREFIX ?= /usr/local
DESTDIR ?=

ifeq ($(filter-out 0,$(EDGEQ_PURE)),)
VENV ?= .venv
else
VENV := .venv-pure
endif

BIN := $(VENV)/bin
SOURCES := $(shell find edgeq -name '*.py') setup.py setup.cfg pyproject.toml

LIB := $(PREFIX)/lib/edgeq
UNITS := $(PREFIX)/lib/systemd/system
DOC := $(PREFIX)/share/doc/edgeq
COMPLETION_bash := bash-completion/completions/edgeq
COMPLETION_zsh := zsh/site-functions/_edgeq
COMPLETION_fish := fish/vendor_completions.d/edgeq.fish

.PHONY: run test test-pure check format lint types bench bench-overload bench-llm bench-llm-load install uninstall clean help

help:
	@echo "make run        install, and serve a demo at http://$(LISTEN)/"
	@echo "make test       run the tests on the compiled build (ARGS='-k name' for some of them)"
	@echo "make test-pure  the same on the interpreted build"
	@echo "make check      format, lint, types, tests"
	@echo "make bench      compare with nginx, HAProxy and Envoy, side by side"
	@echo "make bench-overload   the same gateways with more load than their upstream can take"
	@echo "make bench-llm  edgeq as a gateway for models beside LiteLLM, Portkey's and nginx"
	@echo "make bench-llm-load   the same under load: limits of tokens, streams, clients that leave"
	@echo "make install    for the whole machine, with systemd's units, below PREFIX=$(PREFIX); make uninstall"
	@echo "make clean      remove what was built, but no environment"

run: $(VENV)/.installed
	$(BIN)/edgeq serve --demo --listen $(LISTEN) --admin $(ADMIN)

test: $(VENV)/.installed $(VENV)/.dev
	EDGEQ_INSTALLED=1 $(BIN)/python -P -m pytest -n $(AT_ONCE) --dist loadfile $(ARGS)

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

bench-llm:
	$(PYTHON) -m benchmarks.llm --install $(ARGS)

bench-llm-load:
	$(PYTHON) -m benchmarks.llm_load --install $(ARGS)

# The package and what it needs go into a directory of their own; nothing of this machine's Python is changed. Paths are
# those without DESTDIR, which is for those who make packages. The configuration stays, whoever comes or goes.
INSTALLER := build/installer
# Below other prefixes systemd does not look.
ifneq ($(filter /usr /usr/local,$(PREFIX)),)
NEXT := systemd-sysusers && systemd-tmpfiles --create && sysctl --system && systemctl daemon-reload
else
NEXT := systemd-sysusers $(PREFIX)/lib/sysusers.d/edgeq.conf && systemd-tmpfiles --create \
$(PREFIX)/lib/tmpfiles.d/edgeq.conf && ln -s $(PREFIX)/lib/sysctl.d/60-edgeq.conf /etc/sysctl.d/ && sysctl --system && \
systemctl link $(UNITS)/edgeq.service $(UNITS)/edgeq.socket
endif

install:
	rm -rf "$(INSTALLER)" "$(DESTDIR)$(LIB)"
	$(PYTHON) -m venv "$(INSTALLER)"
	"$(INSTALLER)/bin/pip" install --quiet --disable-pip-version-check --target "$(DESTDIR)$(LIB)" ".[top]"
	rm -rf "$(INSTALLER)" "$(DESTDIR)$(LIB)/bin"
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(UNITS)"
	printf '%s\n' "#!$$($(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))') -P" 'import sys' \
	'sys.path.insert(0, "$(LIB)")' 'from edgeq.cli import main' 'sys.exit(main())' > "$(DESTDIR)$(PREFIX)/bin/edgeq"
	chmod 755 "$(DESTDIR)$(PREFIX)/bin/edgeq"
	sed 's,/usr/bin/env edgeq,$(PREFIX)/bin/edgeq,' systemd/edgeq.service > "$(DESTDIR)$(UNITS)/edgeq.service"
	chmod 644 "$(DESTDIR)$(UNITS)/edgeq.service"
	install -m 644 systemd/edgeq.socket "$(DESTDIR)$(UNITS)/edgeq.socket"
	install -D -m 644 docs/edgeq-admin.7 "$(DESTDIR)$(PREFIX)/share/man/man7/edgeq-admin.7"
	install -D -m 644 systemd/edgeq.sysusers "$(DESTDIR)$(PREFIX)/lib/sysusers.d/edgeq.conf"
	install -D -m 644 systemd/edgeq.tmpfiles "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/edgeq.conf"
	install -D -m 644 systemd/edgeq.sysctl "$(DESTDIR)$(PREFIX)/lib/sysctl.d/60-edgeq.conf"
	install -D -m 644 systemd/example.conf "$(DESTDIR)$(DOC)/example.conf"
	install -D -m 644 edgeq.toml.example "$(DESTDIR)$(DOC)/edgeq.toml.example"
	install -D -m 644 llm.toml.example "$(DESTDIR)$(DOC)/llm.toml.example"
	[ -e "$(DESTDIR)/etc/edgeq/edgeq.toml" ] || install -D -m 644 edgeq.toml.example "$(DESTDIR)/etc/edgeq/edgeq.toml"
	install -d $(foreach shell,bash zsh fish,"$(DESTDIR)$(PREFIX)/share/$(dir $(COMPLETION_$(shell)))")
	set -e; cd /; export PYTHONPATH="$(DESTDIR)$(LIB)"; \
	$(foreach shell,bash zsh fish,$(PYTHON) -P -m edgeq completion $(shell) \
	> "$(DESTDIR)$(PREFIX)/share/$(COMPLETION_$(shell))";) $(PYTHON) -P -m edgeq version
	chmod 644 $(foreach shell,bash zsh fish,"$(DESTDIR)$(PREFIX)/share/$(COMPLETION_$(shell))")
	@head -1 "$(DESTDIR)$(PREFIX)/bin/edgeq" | grep -Eq '^#!/(root|home)/' && echo "the service cannot see this Python," \
	"which is below a home directory: install with another one, PYTHON=/usr/bin/python3" || true
	@echo "now: $(NEXT)"
	@echo "then, with /etc/edgeq/edgeq.toml as it should be: systemctl enable --now edgeq"

uninstall:
	rm -rf "$(DESTDIR)$(LIB)" "$(DESTDIR)$(DOC)"
	cd "$(DESTDIR)$(PREFIX)" && rm -f bin/edgeq lib/systemd/system/edgeq.service lib/systemd/system/edgeq.socket \
	lib/sysusers.d/edgeq.conf lib/tmpfiles.d/edgeq.conf lib/sysctl.d/60-edgeq.conf share/man/man7/edgeq-admin.7 \
	$(foreach shell,bash zsh fish,share/$(COMPLETION_$(shell)))
	@echo "left: $(DESTDIR)/etc/edgeq; a service that runs is not stopped"

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# pip, not python, marks a finished environment: without python3-venv, a half-made one has no pip.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(BIN)/pip
	@echo "installing edgeq into $(VENV); compiling takes some five minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check ".[top]"
	@cat build/compiled/interpreted.txt 2>/dev/null || true
	cd / && $(abspath $(BIN))/edgeq version
	@touch $@

# The packages of the extra "dev" alone: `pip install .[dev]` would build edgeq once more.
$(VENV)/.dev: setup.cfg | $(BIN)/pip
	$(BIN)/python -c "import configparser as c; p = c.ConfigParser(); p.read('setup.cfg'); \
	print(p['options.extras_require']['dev'])" > $@.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $@.txt
	@touch $@
