# The verbs. `make up` and `make test` are all a newcomer needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	if command -v $$each >/dev/null && $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$each; break; fi; done)
LOCK := $(shell sha256sum requirements.lock pyproject.toml 2>/dev/null | sha256sum | cut -c1-16)
STAMP := $(VENV)/.posta-$(LOCK)
SOURCES := services tests docker charts
# One image each; an image installs what requirements.lock has, so what is shipped is what was tested.
IMAGES := $(sort $(filter-out dev,$(patsubst services/%/__main__.py,%,$(wildcard services/*/__main__.py))))
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links

.PHONY: help up down test soak fuzz lint fmt proto chart picture bench lock images base-image test-containers venv clients

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

up: venv ## the whole platform on this machine, with a demo; Ctrl-C stops it
	@$(BIN)/posta up $(ARGS)

down: venv ## stop it
	@$(BIN)/posta down

test: venv clients ## everything but the containers
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

test-containers: venv ## the images, and a platform of pods made of them; Debian, root, podman
	@tests/containers/prepare.sh
	@$(BIN)/pytest tests/containers --timeout=300 $(ARGS)

soak: venv ## nothing is lost while anything is killed: twenty kills, messages up to 20 MB
	@POSTA_SOAK_KILLS=$${POSTA_SOAK_KILLS:-20} $(BIN)/pytest -q tests/flow/faults $(ARGS)

fuzz: venv ## the grammars, by atheris; ARGS="smtp 600" for one of them and how many seconds
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'atheris>=3.0'
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: venv ## style, types, walls
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy --strict services
	@$(BIN)/lint-imports

fmt: venv ## bring the sources into shape
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

proto: venv ## generate services/contracts from proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --plugin=$(BIN)/protoc-gen-mypy --python_out=. --mypy_out=. \
		proto/services/contracts/v1/*.proto

chart: venv ## the chart's schema, key table and dashboards from values.yaml, settings and charts/boards.py
	@$(BIN)/python charts/generate.py

picture: venv ## docs/overview.png, the overview dashboard of a platform at work; needs Prometheus
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'matplotlib>=3.11'
	@$(BIN)/python charts/picture.py $(if $(PROMETHEUS),--prometheus $(PROMETHEUS)) $(ARGS)

bench: venv ## speed and memory, against Postfix and Dovecot where they are installed
	@$(BIN)/python -m bench $(ARGS)

lock: venv ## requirements.lock and docker/requirements/ from pyproject.toml
	@$(COMPILE) --upgrade --extra test pyproject.toml -o requirements.lock
	@$(COMPILE) -c requirements.lock pyproject.toml -o docker/requirements/core.txt
	@for each in $(IMAGES); do \
		$(COMPILE) -c requirements.lock --extra $$each --extra otlp pyproject.toml -o docker/requirements/$$each.txt; \
	done

images: ## the image of every service, or of SERVICES="imap pop", with docker, podman or buildah
	@docker/build.sh $(SERVICES)

base-image: ## BASE_IMAGE for `make images` where no image registry can be reached: Debian, as root
	@docker/base.sh $(NAME)

venv: $(STAMP)

# Named by what it was made from, so a second run is instant and a changed lock is noticed.
$(STAMP):
	@if [ -z "$(PYTHON)" ]; then echo "posta: Python 3.11 or newer is needed, none was found" >&2; exit 1; fi
	@if ! [ -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
			if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
				echo "installing python3-venv"; \
				apt-get install -y -q python3-venv >/dev/null || { apt-get update -q && apt-get install -y -q python3-venv; }; \
			else \
				echo "posta: $(PYTHON) lacks venv; install it first (Debian: apt-get install python3-venv)" >&2; exit 1; \
			fi; \
		fi; \
		echo "making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@# editable_mode=compat: a path, not an import hook, which type checkers do not follow and every start pays for.
	@echo "installing what requirements.lock names"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --config-settings editable_mode=compat -e .
	@rm -f $(VENV)/.posta-*
	@touch $@

# Mail clients, engines, a pooler and a Prometheus that nobody here wrote. Where they cannot be had, the tests that need them are
# skipped, and say so.
clients:
	@missing=""; \
	for each in swaks:swaks mbsync:isync fetchmail:fetchmail curl:curl opendkim:opendkim promtool:prometheus; do \
		command -v $${each%%:*} >/dev/null || missing="$$missing $${each##*:}"; \
	done; \
	for each in clamd:clamav-daemon rspamd:rspamd pgbouncer:pgbouncer; do \
		PATH="$$PATH:/usr/sbin" command -v $${each%%:*} >/dev/null || missing="$$missing $${each##*:}"; \
	done; \
	perl -MNet::SSLeay -e 1 2>/dev/null || missing="$$missing libnet-ssleay-perl"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing$$missing"; \
			export DEBIAN_FRONTEND=noninteractive; \
			apt-get install -y -q --no-install-recommends $$missing >/dev/null 2>&1 \
				|| { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $$missing >/dev/null; } \
				|| echo "posta: could not install$$missing; the tests that need them are SKIPPED" >&2; \
		else \
			echo "posta: not installed:$$missing; the tests that need them are SKIPPED" >&2; \
		fi; \
	fi
