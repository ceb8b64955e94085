# Everything runs in .venv, which the first target that needs it makes from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
READY := $(VENV)/.ready

.PHONY: help setup demo test check format docs bench study wheel gpu-check clean

help: ## what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt '$(TORCH)'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,test]'
	touch $(READY)

setup: $(READY) ## the virtual environment, pinned by constraints.txt

demo: $(READY) ## the main job on the built-in domain, into demo-out/
	$(BIN)/gansegctl demo run -o demo-out

test: $(READY) ## the tests (GPU tests skip without a GPU)
	$(BIN)/pytest -q -m 'not slow' --durations=10

check: $(READY) ## lint, format, import order, help pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q tests/test_architecture.py tests/test_docs.py

format: $(READY) ## reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## rewrite docs/cli.md from the commands' own help
	$(BIN)/python docs/generate_cli.py

bench: $(READY) ## the feature path against upsample-and-concatenate, on this machine
	$(BIN)/python docs/bench_features.py

study: $(READY) ## one, five and ten shots of repurpose on the demo generator (slow; docs/study.md)
	$(BIN)/python docs/study.py

wheel: $(READY) ## a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

gpu-check: $(READY) ## the tests that need a GPU
	$(BIN)/pytest -q -m gpu

clean: ## remove what make made
	rm -rf $(VENV) build dist demo-out *.egg-info
