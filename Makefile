# The words that people and CI share. Needs Python 3.11 or newer and make; see README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Exactly the pinned torch, asked for first: any later request then finds it there.
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test check format bench mini clean

demo: $(VENV)/.demo  ## recognize clips of data/moods, pre-train a tiny model on them, probe it
	$(BIN)/emotion2vec recognize 'data/moods/clips/f1-*-01.ogg' 'data/moods/clips/m1-*-01.ogg'
	@echo "These voices are synthetic, out of the domain of mini: docs/mini.md."
	rm -rf runs/demo
	$(BIN)/emotion2vec pretrain configs/pretrain_demo.toml --data data/moods/manifest.jsonl --out runs/demo
	$(BIN)/emotion2vec probe runs/demo/final --data data/moods/manifest.jsonl \
		--folds data/moods/folds.json --epochs 40 --out runs/demo/probe
	@echo "The map of the features is runs/demo/probe/map.png, the confusion matrix confusion.png."

test: $(VENV)/.dev  ## all tests, the examples in docstrings and README among them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.dev  ## what CI asks of the code's form
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml

format: $(VENV)/.dev  ## mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## speed and memory, as ratios measured side by side
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

mini: $(VENV)/.dev  ## emotion2vec-mini anew, from CORPORA=folder of ravdess, emodb and urdu
	$(BIN)/python recipes/mini.py $(CORPORA) runs/mini

clean:  ## the environment, the demo's run and caches
	rm -rf $(VENV) runs/demo build dist .ruff_cache .mypy_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,eval]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
