# Everything happens in VENV, which the first command makes with PYTHON: make test PYTHON=python3.12 VENV=.venv-3.12
VENV ?= .venv
PYTHON ?= $(firstword $(wildcard $(VENV)/bin/python) python3)
CATEGORY ?= metal
RUN ?= runs/quickstart_$(CATEGORY)

install: $(VENV)/run  ## Make .venv with everything that the scripts need.

# Huge pages for what XLA takes and gives back in every step: the system has 500 times fewer pages to clear.
quickstart: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
quickstart: $(VENV)/run  ## Train on the embedded default and evaluate: minutes on two cores.
	$(VENV)/bin/python train.py --config=configs/quickstart.py:$(CATEGORY) --workdir=$(RUN)
	$(VENV)/bin/python evaluate.py --workdir=$(RUN)

test: $(VENV)/dev  ## Run the tests, two files at a time.
	$(VENV)/bin/python -m pytest --numprocesses=2 --dist=loadfile

# Those on the PATH may be pyenv's, which start nothing unless their version was chosen; its folder has the real ones.
test-all:  ## Run the tests with each version of Python that is installed, in an environment of its own.
	@status=0; summary=; for version in 3.11 3.12 3.13; do \
		for python in python$$version "$$(pyenv root 2>/dev/null)"/versions/$$version.*/bin/python ''; do \
			"$$python" -c '' 2>/dev/null && break; \
		done; \
		if [ -z "$$python" ]; then result='not run, no interpreter found'; \
		elif $(MAKE) test PYTHON="$$python" VENV=.venv-$$version; then result=passed; \
		else result=FAILED; status=1; fi; \
		summary="$$summary\nPython $$version: $$result"; \
	done; printf "$$summary\n"; exit $$status

check: $(VENV)/dev  ## Run the linter and the type checker.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Always asked: is PYTHON a version that works here, and the one that VENV was made with?
python:
	@$(PYTHON) -c 'import os, sys; found = "%d.%d" % sys.version_info[:2]; sys.exit( \
		"Error: expected Python 3.11 to 3.13, found %s. Try: make ... PYTHON=python3.12" % found \
		if not (3, 11) <= sys.version_info[:2] <= (3, 13) else \
		"Error: expected Python %s in $(VENV), found another. Try: make ... VENV=$(VENV)-%s" % (found, found) \
		if os.path.exists("$(VENV)/bin/python") and not os.path.exists("$(VENV)/lib/python" + found) else 0)'

$(VENV)/run: requirements.txt constraints.txt | python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-dev.txt --constraint constraints.txt
	touch $@

.PHONY: install quickstart test test-all check python
