# `make run` starts gemproxy from this folder, `make test` runs every check, `make quick` those that
# need no CLI and no browser. They install what they need here: Python packages in .venv, from the lock files, and
# the Gemini CLI in node_modules.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
LOCK := requirements-test.txt
# Processes that share the tests.
WORKERS ?= 2
# The Pythons of this machine, found by their names or where pyenv has them.
PYTHONS ?= $(foreach minor,11 12 13 14 15,$(call find_python,3.$(minor)))
find_python = $(shell for python in python$(1) "$$HOME"/.pyenv/versions/$(1).*/bin/python$(1); do \
	"$$python" -c 'import ensurepip' 2>/dev/null && echo "$$python" && break; done)
PIP_AUDIT := 2.10.1
# Of the versions that are allowed the lowest are tested with the lowest Python.
LOWEST_PYTHON ?= $(firstword $(PYTHONS) $(PYTHON))

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: run doctor test quick tests-without-cli lowest pythons sdks clients chart image screenshots lint \
	audit bench bodies chaos soak memory lock client-locks clean

run: $(VENV)/installed
	@set -a; if [ -f .env ]; then . ./.env; fi; set +a; \
	case "$$GEMINI_ENGINE $(ARGS)" in \
		direct\ *|*--gemini-engine?direct*) ;; \
		*) if ! command -v node > /dev/null || ! command -v npm > /dev/null; then \
			echo "The Gemini CLI needs Node 20 or later with npm, which this machine has not:"; \
			echo "  - install it, for example with 'nvm install 20' or from https://nodejs.org,"; \
			echo "  - or do without the CLI: make run GEMINI_ENGINE=direct"; \
			exit 1; \
		fi; \
		$(MAKE) --no-print-directory node_modules/installed || exit;; \
	esac; \
	demo=; \
	if [ -z "$$GEMINI_API_KEY$$GEMINI_API_KEY_FILE" ]; then \
		echo "GEMINI_API_KEY is not set: serving the demo, which only echoes requests."; \
		demo=--demo; \
	fi; \
	exec $(BIN)/twistd -n --pidfile= gemproxy $$demo $(ARGS)

# With the variables that `make run` has.
doctor: $(VENV)/installed
	@set -a; if [ -f .env ]; then . ./.env; fi; set +a; exec $(BIN)/gemproxy doctor $(ARGS)

# Each of the processes that share the tests has a daemon of its own.
test: lint node_modules/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Without the CLI, be it the fake one, without what waits or starts daemons, and with fewer examples
# where there are many: less than a minute.
quick: $(VENV)/installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory tests-without-cli $(QUICKLY)

QUICKLY = MARKS='$(WITHOUT_CLI) and not slow' ARGS='--ignore=tests/test_untrusted_cli.py $(ARGS)'

# Without the real CLI and other programs. Compiled tests are kept, though the environment may say
# otherwise.
WITHOUT_CLI := not cli and not browser and not haproxy and not redis and not processes
MARKS ?= $(WITHOUT_CLI)
tests-without-cli: $(VENV)/installed-for-tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -m '$(MARKS)' \
		--hypothesis-profile=quick -n $(WORKERS) --dist worksteal $(ARGS)

# With the lowest versions of other packages that setup.cfg allows.
lowest:
	@$(MAKE) --no-print-directory tests-without-cli \
		VENV=.cache/lowest LOCK=requirements-lowest.txt PYTHON=$(LOWEST_PYTHON)

# The quick ones, with every Python of this machine but the one that `make test` has.
pythons: $(VENV)/created
	@for python in $(PYTHONS); do \
		if [ "$$($$python -V)" = "$$($(BIN)/python -V)" ]; then continue; fi; \
		$(MAKE) --no-print-directory tests-without-cli $(QUICKLY) \
			VENV=.cache/$$(basename $$python) PYTHON=$$python || exit; \
	done

# Beside LiteLLM, which it installs under .cache, and nginx where that is installed: some minutes.
bench: $(VENV)/installed-for-tests node_modules/installed
	$(BIN)/python -m bench $(ARGS)

# Everything goes wrong for three minutes; 40,000 requests in a row; and many clients with little
# memory, which needs root.
bodies chaos soak memory: $(VENV)/installed-for-tests node_modules/installed
	$(BIN)/python -m bench.$@ $(ARGS)

# Client libraries, which it installs under .cache, against both ports: some minutes.
CLIENTS := .cache/clients
SDKS := $(CLIENTS)/sdks/installed $(CLIENTS)/llama-index/installed $(CLIENTS)/node/installed
sdks: $(VENV)/installed-for-tests node_modules/installed $(SDKS)
	$(BIN)/python -m pytest -q tests/clients -m sdk $(ARGS)

# With the programs as well. One that cannot be installed is skipped, and the reason told.
clients: $(VENV)/installed-for-tests node_modules/installed $(SDKS) $(CLIENTS)/programs/installed
	-@$(MAKE) --no-print-directory $(CLIENTS)/aider/installed > $(CLIENTS)/aider.log 2>&1
	$(BIN)/python -m pytest -q tests/clients $(ARGS)

# The image and the compose files, with a real Docker engine: some minutes.
image: $(VENV)/installed-for-tests
	docker/with-engine.sh $(BIN)/python -m pytest -q docker -o faulthandler_timeout=900 $(ARGS)

# The Helm chart, with Helm and Kubernetes' schemas, which it installs under .cache.
chart: $(VENV)/installed-for-tests $(CLIENTS)/chart/installed
	PATH="$(CURDIR)/$(CLIENTS)/chart/bin:$$PATH" $(BIN)/python -m pytest -q tests/test_chart.py $(ARGS)

# Makes the pictures in docs/console.md anew, while the console is tested.
screenshots: $(VENV)/installed-for-tests node_modules/installed
	SCREENSHOTS=docs/console $(BIN)/python -m pytest -q tests/test_console_browser.py $(ARGS)

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gemproxy needs Python 3.11 or later; name one with: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# A lock file names all that is needed, so pip need not look for more: some versions of it would
# find newer packages there.
$(VENV)/installed: $(VENV)/created setup.cfg pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/created setup.cfg pyproject.toml $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/installed

# Known vulnerabilities of what the lock files pin. Where that cannot be found out, it says so.
audit: $(VENV)/installed .cache/audit/installed
	$(BIN)/python -m testing.audit

# A tool of its own, which need not agree with the packages here; without it there is no audit.
.cache/audit/installed:
	@$(PYTHON) -m venv .cache/audit && \
		.cache/audit/bin/python -m pip install --quiet pip-audit==$(PIP_AUDIT) && touch $@ || \
		echo "pip-audit cannot be installed."

# Each lock file of the clients has an environment of its own: they do not agree on versions.
$(CLIENTS)/%/installed: tests/clients/locks/%.lock | $(VENV)/installed-for-tests
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --no-deps --require-hashes -r $<
	@touch $@

$(CLIENTS)/node/installed: $(wildcard tests/clients/locks/node/*.json)
	@mkdir -p $(@D) && cp $^ $(@D)
	npm ci --prefix $(@D) --no-audit --no-fund --loglevel=error
	@touch $@

# The programs are optional in their package.json: npm leaves out what it cannot install. `npm ci`
# would take it for a mistake that their lock file lacks what they have for other systems.
$(CLIENTS)/programs/installed: $(wildcard tests/clients/locks/programs/*.json)
	@mkdir -p $(@D) && cp $^ $(@D)
	npm install --no-save --prefix $(@D) --no-audit --no-fund --loglevel=error
	@touch $@

# Renews the lock files: the newest versions that setup.cfg allows, with what they need; what the
# tests need besides; and the same again with the lowest versions of what gemproxy needs itself.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	--no-header --no-emit-index-url --no-emit-find-links
COMPILE = $(UV_COMPILE) setup.cfg
lock: $(VENV)/installed-for-tests
	@mkdir -p .cache
	$(COMPILE) --generate-hashes --extra build --extra redis -o requirements.txt
	$(COMPILE) --generate-hashes --extra build --extra test \
		-c requirements.txt -o requirements-test.txt
	$(COMPILE) --no-deps --resolution lowest-direct --no-annotate -o .cache/floors.txt
	$(COMPILE) --generate-hashes --extra build --extra test \
		-c .cache/floors.txt -o requirements-lowest.txt

# Renews those of the clients: their newest versions.
client-locks: $(VENV)/installed-for-tests
	for name in $(basename $(notdir $(wildcard tests/clients/locks/*.in))); do \
		$(UV_COMPILE) --generate-hashes tests/clients/locks/$$name.in -o tests/clients/locks/$$name.lock || exit; \
	done
	for name in node programs; do \
		npm --prefix tests/clients/locks/$$name update --save --package-lock-only || exit; \
	done

# Nothing that is optional for the CLI is of use to a worker.
node_modules/installed: package.json package-lock.json
	npm ci --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) .cache node_modules build dist *.egg-info
