# make build | demo | test | lint | clean, on a Debian 12 machine with git, Python 3.11 and make; as root, for probes and packages.
# What is missing is installed (ci/packages.txt, pyproject.toml); what is there is left alone, so the second time is quick.
SHELL := /bin/bash
PYTHON := .venv/bin/python
SOURCES := setup.py $(wildcard ext/*.pxd ext/*/*.pyx ext/*/*.pxd ext/include/* bpf/include/*)
ARGS ?=

.PHONY: help build demo test lint generate clean packages-build packages-demo packages-test
.NOTPARALLEL:

help:
	@echo 'make build             install what is needed and build; then .venv/bin/deeptrace works'
	@echo "make demo              run real services under load and show their traces (ARGS='--seconds 10 --json')"
	@echo "make test              run all tests (ARGS='tests/unit -k wire')"
	@echo 'make lint              style, types and generated files'
	@echo 'make generate          write the generated files again'
	@echo 'make clean             remove what was built and .venv'

build: packages-build .venv/.stamp-built

demo: build packages-demo
	@.venv/bin/deeptrace demo $(ARGS)

test: build packages-demo packages-test .venv/.stamp-dev
	@$(PYTHON) -m pytest $(ARGS)

lint: build .venv/.stamp-dev
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@$(PYTHON) ci/generate --check

generate: build .venv/.stamp-dev
	@$(PYTHON) ci/generate

clean:
	@rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find deeptrace tests ci benchmarks \( -name '*.so' -o -name '__pycache__' \) -prune -exec rm -rf {} +

packages-build packages-demo packages-test: packages-%:
	@ci/install-packages $*

.venv/.stamp-run: pyproject.toml ci/venv ci/requirements
	@ci/venv run
	@touch $@

.venv/.stamp-dev: .venv/.stamp-run
	@ci/venv dev
	@touch $@

.venv/.stamp-built: .venv/.stamp-run $(SOURCES)
	@ci/step "compiled core" build/log/build.log $(PYTHON) setup.py build_ext --inplace --parallel $$(nproc)
	@if [ ! -x .venv/bin/deeptrace ]; then ci/step "deeptrace command" build/log/pip-self.log env DEEPTRACE_PREBUILT=1 $(PYTHON) -m pip install \
		--disable-pip-version-check --no-build-isolation --no-deps --config-settings editable_mode=compat --editable .; fi
	@touch $@
