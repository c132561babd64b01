# On a machine that has only Python and make, every target first builds .venv, once.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
INSTALL := $(BIN)/python -m pip install -qq --constraint constraints.txt
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
CPU_WHEELS := https://download.pytorch.org/whl/cpu

.PHONY: help venv test lint wheel-check demo docs clean

help:
	@echo "make venv         the virtual environment with all extras and test tools"
	@echo "make test         the tests                      (PYTEST_ARGS='-k lengths -x')"
	@echo "make lint         style, types, docstrings of the probes"
	@echo "make wheel-check  the distribution, built and installed with the core dependencies only"
	@echo "make demo         real speech, a real trainer, five cases    (DEMO_ARGS='--quick')"
	@echo "make docs         write docs/rules from the docstrings of the rules"
	@echo "make clean        remove what all of these made"

venv: $(INSTALLED)

# torch comes first and by exact version: a plain "torch" brings gigabytes of CUDA on Linux. The CPU build is looked for
# where pip is set up to look, then among PyTorch's own wheels; elsewhere (macOS) the build on PyPI is the CPU build.
# With hatchling from constraints.txt already there, the package needs no build environment of its own.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("ctcguard needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "installing into .venv: about 2 GB, a few minutes, once"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --upgrade pip
	@$(INSTALL) $(TORCH)+cpu 2>/dev/null || $(INSTALL) $(TORCH)+cpu --extra-index-url $(CPU_WHEELS) 2>/dev/null || $(INSTALL) $(TORCH)
	@$(INSTALL) --group dev
	@$(INSTALL) --no-build-isolation --editable '.[all]'
	@touch $@

# Two workers, a file of tests on one of them, so that each costly fixture is made once, in the order of their names:
# else the files with the fewest tests, which are the longest, come last. A worker that dies ends the run: pytest-xdist
# would replace it, and then wait for ever. PYTEST_ARGS="-n 0" for a debugger.
test: venv
	@$(BIN)/pytest --quiet -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(PYTEST_ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/numpydoc lint ctcguard/probes/[a-z]*.py

wheel-check: venv
	@$(BIN)/pytest --quiet -m wheel tests/meta/test_wheel.py

demo: venv
	@$(BIN)/ctcguard demo $(DEMO_ARGS)

docs: venv
	@$(BIN)/ctcguard rules --docs docs/rules
	@$(BIN)/python docs/readme.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist ctcguard-runs wandb
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
