# make run    a guest that keeps writing is migrated over a wire of 1 Gbit/s by four methods; one table at the end
# make test   all tests
# make lint   ruff and mypy --strict
# make bench  ours beside QEMU and beside each codec alone, with 2 GiB of this Python's files
# Each first makes .venv when it is missing or older than pyproject.toml.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: run test lint bench clean

run: $(READY)
	$(VENV)/bin/python -m pipeline.run --prealloc --method none,zstd,qatzip,auto --max-bandwidth 1Gbit

test: $(READY)
	tools/get_qatzip.sh || echo "tests that need libqatzip will be skipped"
	tools/get_guest.sh || echo "tests that need a live guest will be skipped"
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY)
	tools/get_qemu.sh || echo "QEMU will be left out"
	$(VENV)/bin/python -m tools.bench --size 2G

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or later is needed; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "install the venv module: apt-get install python3-venv" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .qatzip .guest build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
