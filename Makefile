# Two commands do everything on a fresh machine with Python >= 3.11:
#   make serve    make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Workers for the tests that may run side by side; 2 fits the smallest CI machine.
JOBS ?= 2

.PHONY: serve test check bench clean

serve: $(VENV)/.installed
	$(BIN)/mirror serve

test: check
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

check: $(VENV)/.installed
	$(BIN)/ruff check mirror tests layouts
	$(BIN)/ruff format --check mirror tests layouts
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mirror needs Python >= 3.11, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
