# `make run` starts gemproxy from this folder, `make test` runs every check.
# Both install what they need here: Python packages in .venv, the Gemini CLI in node_modules.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: run test lint bench chaos soak clean

run: $(VENV)/installed node_modules/installed
	@set -a; if [ -f .env ]; then . ./.env; fi; set +a; \
	demo=; \
	if [ -z "$$GEMINI_API_KEY" ]; then \
		echo "GEMINI_API_KEY is not set: serving the demo, whose answers only echo what was asked."; \
		demo=--demo; \
	fi; \
	exec $(BIN)/twistd -n --pidfile= gemproxy $$demo $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

# Beside LiteLLM, which it installs under .cache, and nginx where that is installed: some minutes.
bench: $(VENV)/installed node_modules/installed
	$(BIN)/python -m bench $(ARGS)

# Everything goes wrong for three minutes; and 40,000 requests in a row.
chaos soak: $(VENV)/installed-for-tests node_modules/installed
	$(BIN)/python -m bench.$@ $(ARGS)

lint: $(VENV)/installed-for-tests node_modules/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gemproxy needs Python 3.11 or later; name one with: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/created setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

# Nothing that is optional for the CLI is of use to a worker.
node_modules/installed: package.json package-lock.json
	npm ci --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) .cache node_modules build dist *.egg-info
