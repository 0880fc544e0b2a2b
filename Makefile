VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready
PYTEST_ARGS ?=

.PHONY: venv demo test fuzz lint bench gpu-dry

venv: $(READY)

# torch first, since BasicSR's build needs it; no build isolation, which would install torch once more.
$(READY): pyproject.toml setup.py constraints.txt basicsr_ext/install_basicsr.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) torch torchvision
	$(PY) -m basicsr_ext.install_basicsr -c constraints.txt
	$(PIP) --no-build-isolation -e ".[dev]"
	touch $@

demo: $(READY)
	$(PY) demo/run.py --out demo_out

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope $(PYTEST_ARGS)

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(PY) tests/fuzz/fuzz_options.py --count 10000

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)
	for script in bench/*.py; do OMP_NUM_THREADS=1 $(PY) $$script || exit 1; done

gpu-dry: $(READY)
	PACKER=$(PY) bench/gpu/dry.sh
