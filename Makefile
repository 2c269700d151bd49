# The lines that CI runs, and the sets of dependencies that the tests are run on. PYTHON picks the interpreter.
PYTHON ?= python3
UV ?= uv
SEED ?= 1
MINUTES ?= 20
SETS = --extra dev --extra ray --extra record
ALL = .[dev,ray,record]

.PHONY: test fast lint slow torture peers lock lowest newest

test:  ## what a newcomer runs
	$(PYTHON) -m pytest

fast:  ## stop at the first failure; the tests that need no torch
	$(PYTHON) -m pytest -x -q tests/cli tests/data tests/hub tests/instant tests/test_audio.py tests/test_imports.py

lint:
	ruff check . && ruff format --check . && mypy

slow:  ## what takes long, a part of the batteries among it
	$(PYTHON) -m pytest -m slow

torture:  ## bad input, signals, full disks, a hostile hub: 20 minutes; SEED and MINUTES are yours
	$(PYTHON) tests/torture/battery.py --seed $(SEED) --minutes $(MINUTES)

peers:  ## transformers' own test suites over a tiny GAMA; pip fetches their source
	$(PYTHON) -m pip install --quiet pillow parameterized
	GAMA_PEERS=1 $(PYTHON) -m pytest -q -m slow tests/peers

lock:  ## constraints.txt and constraints/lowest.txt anew from pyproject.toml; then run the tests
	# torch stays on the release for which the CI machines carry a build for CPUs alone; newer ones are seen by 'newest'
	echo 'torch==2.13.0' | $(UV) pip compile pyproject.toml $(SETS) --universal --python-version 3.11 \
		--constraints - --no-header --no-annotate --output-file constraints.txt
	$(UV) pip compile pyproject.toml $(SETS) --resolution lowest-direct --python-version 3.11 \
		--no-header --no-annotate --output-file constraints/lowest.txt

lowest:  ## the tests on the oldest releases that the ranges admit
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --editable '$(ALL)' --constraint constraints/lowest.txt
	.venv-lowest/bin/python -m pytest

newest:  ## the tests on the newest releases that the ranges admit; records them when all pass
	rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --editable '$(ALL)'
	.venv-newest/bin/python -m pytest --deselect tests/test_dependencies.py
	.venv-newest/bin/pip list --format freeze --exclude-editable > constraints/newest.txt
