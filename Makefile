# Everything happens in .venv, which the first command makes. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
RUN ?= runs/quickstart
CATEGORY ?= metal

quickstart: .venv/run  ## Train on the embedded default and evaluate: minutes on two cores.
	.venv/bin/python train.py --config=configs/quickstart.py:$(CATEGORY) --workdir=$(RUN)
	.venv/bin/python evaluate.py --workdir=$(RUN)

test: .venv/dev  ## Run the tests.
	.venv/bin/python -m pytest

check: .venv/dev  ## Run the linter.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/run: requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/run
	.venv/bin/python -m pip install --quiet --requirement requirements-dev.txt --constraint constraints.txt
	touch $@

.PHONY: quickstart test check
