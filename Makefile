# `make demo` and `make test` need nothing but Python 3.10 to 3.13 on Linux: both make their own environment in .venv.
# Another Python: make demo PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
SUITABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	if $$python -c '$(SUITABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

# As many processes as cores and memory allow, each with whole files, whose tests share what was made once.
PARALLEL := -n auto --dist loadfile

.PHONY: help demo test coverage cmake-lists checksums clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         segment both hippocampi of the ICBM 152 template; results in demo/"
	@echo "make test         every check and test"
	@echo "make coverage     every test, and which lines none of them comes to; twice as slow"
	@echo "make cmake-lists  write the files that exist into the CMake lists"
	@echo "make checksums    write the built-in models' SHA-256 into Resources/Models/checksums.json"
	@echo "make clean        remove what demo and test made, the environment too"

demo: $(VENV)/installed
	$(BIN)/medai demo -o demo

test: $(VENV)/installed-dev
	@failed=; \
	check() { printf '\n== %s\n' "$$*"; $(BIN)/"$$@" || failed="$$failed\n  $$*"; }; \
	check ruff check .; \
	check ruff format --check .; \
	check mypy; \
	check lint-imports; \
	check pytest $(PARALLEL) --durations=25; \
	if [ -n "$$failed" ]; then printf '\nFAILED:%b\n' "$$failed"; exit 1; fi; \
	printf '\nAll checks passed.\n'

coverage: $(VENV)/installed-dev
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term:skip-covered

cmake-lists: $(BIN)/python
	$(BIN)/python Tools/cmake_lists.py

checksums: $(VENV)/installed
	$(BIN)/python Tools/model_checksums.py

clean:
	rm -rf $(VENV) demo build dist medai.egg-info htmlcov .coverage .hypothesis
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "MedAI needs Python 3.10 to 3.13; name one: make $(MAKECMDGOALS) PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$(PYTHON) is not Python 3.10 to 3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) lacks venv; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/installed
