# Everything happens in .venv, which the first command makes. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
CATEGORY ?= metal
RUN ?= runs/quickstart_$(CATEGORY)

install: .venv/run  ## Make .venv with everything that the scripts need.

# Huge pages for what XLA takes and gives back in every step: the system has 500 times fewer pages to clear.
quickstart: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
quickstart: .venv/run  ## Train on the embedded default and evaluate: minutes on two cores.
	.venv/bin/python train.py --config=configs/quickstart.py:$(CATEGORY) --workdir=$(RUN)
	.venv/bin/python evaluate.py --workdir=$(RUN)

# The processes of test_processes.py have 30 s to meet, a limit of Gloo's, so they get the machine for themselves.
test: .venv/dev  ## Run the tests, two files at a time.
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile --ignore=tests/test_processes.py
	.venv/bin/python -m pytest tests/test_processes.py

check: .venv/dev  ## Run the linter and the type checker.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/run: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and \
		"Error: expected Python 3.11 to 3.13, found %d.%d. Try: make ... PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/run
	.venv/bin/python -m pip install --quiet --requirement requirements-dev.txt --constraint constraints.txt
	touch $@

.PHONY: install quickstart test check
