# Every target does the set-up it needs. PYTHON: the interpreter that makes .venv/ (3.11 or newer).
# PIP_FLAGS: for example --extra-index-url https://download.pytorch.org/whl/cpu for the small torch.
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin
STAMP := .venv/.ready
AT_ONCE := -n auto --dist loadfile# a process per core: every test runs on one thread
NOT_HERE := not gpu and not cuda and not network

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow wheel-test lint bench clean

help:
	@echo "make setup | demo | test | test-slow | wheel-test | lint | bench | clean"

setup: $(STAMP)

# torch first and alone: then nothing that depends on it can choose another build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e ".[train,cpu,demo,dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m benchmarks.docstring_search --output demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -q $(AT_ONCE) -m "not slow and $(NOT_HERE)"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow and $(NOT_HERE)"

# The wheel as somebody has it who only opens packages: installed beside no torch, run where this tree is not.
wheel-test:
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT INT TERM; \
	$(PYTHON) -m venv "$$dir/venv"; \
	"$$dir/venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$$dir" .; \
	"$$dir/venv/bin/pip" install --quiet $(PIP_FLAGS) -c constraints.txt "$$(echo "$$dir"/tenmeg-*.whl)[cpu]"; \
	cp -r tests/golden/sentiment "$$dir/package"; \
	cd "$$dir"; \
	venv/bin/tenmeg --help > help.txt; \
	venv/bin/python -m tenmeg --help | cmp - help.txt; \
	venv/bin/python -c "import sys, tenmeg; assert not {'torch', 'numpy'} & set(sys.modules), 'the import is heavy'"; \
	venv/bin/python -c "import importlib.util as found; assert not found.find_spec('torch'), 'torch was installed'"; \
	venv/bin/tenmeg verify package --max-size 1MB; \
	venv/bin/python -c "import tenmeg; print(tenmeg.load('package').predict('a wonderful film'))"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.predicted_bytes

clean:
	rm -rf .venv build dist demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
