VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTEST_ARGS ?=
NEWEST ?= .venv-newest
LOWEST ?= .venv-lowest

.PHONY: venv demo test test-newest test-lowest test-wheel fuzz lint bench gpu-dry

PIP = $(1)/bin/python -m pip install --quiet --disable-pip-version-check

# $(1): environment; $(2): pip's constraints, or nothing; $(3): what is installed, from this folder.
# torch first, since BasicSR's build needs it; no build isolation, which would install torch once more.
define install
	$(PIP) $(2) --upgrade setuptools wheel
	$(PIP) $(2) torch torchvision
	$(1)/bin/python -m basicsr_ext.install_basicsr $(2)
	$(PIP) $(2) --no-build-isolation $(3)
endef

define new_environment
	$(PYTHON) -m venv --clear $(1)
	$(PIP) --upgrade pip
endef

venv: $(READY)

$(READY): pyproject.toml setup.py constraints.txt basicsr_ext/install_basicsr.py
	$(PYTHON) -m venv $(VENV)
	$(call PIP,$(VENV)) --upgrade pip
	$(call install,$(VENV),-c constraints.txt,-e ".[dev]")
	touch $@

demo: $(READY)
	$(PY) demo/run.py --out demo_out

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope $(PYTEST_ARGS)

# The same with the newest of everything that pip takes, or the lowest that pyproject.toml declares, in new environments.
test-newest:
	$(call new_environment,$(NEWEST))
	$(call install,$(NEWEST),,-e ".[test]")
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -n 2 --dist loadscope $(PYTEST_ARGS)

test-lowest:
	$(call new_environment,$(LOWEST))
	$(LOWEST)/bin/python .ci/lowest_versions.py > $(LOWEST)/lowest.txt
	$(call install,$(LOWEST),-c $(LOWEST)/lowest.txt,-e ".[test]")
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadscope $(PYTEST_ARGS)

# The wheel with the newest that pip takes: from photographs over ECO on two ranks to an enlarged image, away from the clone.
test-wheel:
	$(call new_environment,$(NEWEST))
	rm -rf $(NEWEST)/wheel build && mkdir -p $(NEWEST)/wheel/anywhere
	$(call PIP,$(NEWEST)) --upgrade setuptools wheel
	$(NEWEST)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(NEWEST)/wheel .
	$(call install,$(NEWEST),,$(NEWEST)/wheel/*.whl)
	$(PYTHON) tests/installed_package.py $(NEWEST)/bin/python $(NEWEST)/wheel/anywhere

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
