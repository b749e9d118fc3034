# make demo   one phase of MiRA on the embedded shop, with a report at the end
# make test   the test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
# Tests that are meaningful on an accelerator: parity, attention and its kernels, the sampler, adapters, precision, and the training step.
DEVICE_TESTS := $(addprefix tests/,models/test_gemma3.py models/test_attention.py models/test_kernels.py models/test_precision.py models/test_lora.py \
	models/test_sampler.py training/test_step.py training/test_precision.py recipes/test_scoring.py)
# Tests that depend on the versions of Python and JAX, for test-newest.
NEWEST_TESTS := $(addprefix tests/,rl data models/test_gemma3.py models/test_attention.py models/test_sampler.py training/test_step.py interchange \
	test_ring.py)

.PHONY: demo test test-device test-peers test-lowest test-newest test-ray test-openenv bench-peers reproduce reproduce-quick reproduce-anchor reproduce-anchor-quick lint docs setup clean

demo: setup
	$(BIN)/mira demo $(if $(SEED),--set seed=$(SEED))

test: setup
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# Numerical tests on the GPU or TPU of this machine, in a single process: make test-device EXTRAS=dev,cuda
test-device: setup
	@if $(BIN)/python -c "import jax; exit(jax.default_backend() == 'cpu')"; then \
		XLA_FLAGS= XLA_PYTHON_CLIENT_PREALLOCATE=false $(BIN)/python -m pytest -p no:xdist -m 'not slow' \
			-o addopts='-q --strict-markers --import-mode=importlib' $(DEVICE_TESTS); \
	else echo "skipped: jax finds no GPU or TPU on this machine; EXTRAS=dev,cuda or EXTRAS=dev,tpu installs its libraries"; fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# The documentation as a site, in site/. Warnings are errors.
docs:
	VENV=$(VENV) PYTHON=$(PYTHON) scripts/setup.sh dev,docs
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mkdocs build --strict

# Comparison with transformers, in a separate environment because torch is large. A second environment reads the tokenizers of
# exports with the oldest supported transformers, which needs an older `tokenizers`.
test-peers:
	VENV=.venv-peers PYTHON=$(PYTHON) scripts/setup.sh dev,peers
	.venv-peers/bin/python -m pytest -o addopts='-q --import-mode=importlib' tests/peers tests/serving/test_lm_eval.py
	VENV=.venv-peers-oldest PYTHON=$(PYTHON) scripts/setup.sh dev,transformers transformers==4.57.1 tokenizers==0.22.0 huggingface_hub==0.36.2
	.venv-peers-oldest/bin/python -m pytest -o addopts='-q --import-mode=importlib' tests/peers/test_configs.py tests/peers/test_tokenizer.py tests/peers/test_generation.py \
		tests/trajectories/test_tokenizer_json.py

# The whole loop in miniature, in a separate environment with the oldest versions that pyproject.toml allows.
test-lowest: setup
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --quiet --resolution lowest-direct -e ".[dev]"
	.venv-lowest/bin/python -m pytest -o addopts='-q --strict-markers --import-mode=importlib' tests/test_ring.py

# On the newest Python of this machine, in a separate environment, with the versions of JAX and Flax that constraints.txt has for it.
# Of harbor only the models of ATIF are used, which need pydantic and nothing else of what it depends on.
test-newest:
	VENV=.venv-newest PYTHON=$$(scripts/newest_python.sh) scripts/setup.sh dev
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pydantic
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps harbor
	.venv-newest/bin/python -c "import harbor.models.trajectories"
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal $(NEWEST_TESTS)

# Rollouts on a Ray cluster of two nodes on this machine, in a separate environment.
test-ray:
	VENV=.venv-ray PYTHON=$(PYTHON) scripts/setup.sh dev,ray
	.venv-ray/bin/python -m pytest -o addopts='-q --strict-markers --import-mode=importlib' tests/rollouts/test_ray.py

# The arena as an environment of OpenEnv, used by its own client, in a separate environment because gradio needs an older pillow.
test-openenv:
	VENV=.venv-openenv PYTHON=$(PYTHON) scripts/setup.sh dev,openenv pillow==12.3.0
	.venv-openenv/bin/python -m pytest -o addopts='-q --strict-markers --import-mode=importlib' tests/rollouts/test_openenv.py

# Environments for the benchmarks: torch and transformers, and google-tunix (train_step.py, decode.py), and BrowserGym, which needs
# an older Playwright (rollout.py).
bench-peers:
	VENV=.venv-peers PYTHON=$(PYTHON) scripts/setup.sh dev,peers
	$(PYTHON) -m venv .venv-tunix
	.venv-tunix/bin/python -m pip install --quiet --disable-pip-version-check google-tunix==0.1.7
	$(PYTHON) -m venv .venv-browsergym
	.venv-browsergym/bin/python -m pip install --quiet --disable-pip-version-check browsergym-miniwob==0.14.3

# The comparison of methods of docs/results.md, which takes hours, and a part of it. Both go on where they stopped.
reproduce: setup
	$(BIN)/python benchmarks/study.py run
	$(BIN)/python benchmarks/study.py run --series common
	$(BIN)/python benchmarks/study_results.py table
	$(BIN)/python benchmarks/study_results.py table --series common

# Two seeds of the demo, a process each.
QUICK := runs/quick/seed
reproduce-quick: setup
	mkdir -p runs/quick && echo "the output is in $(QUICK)-1.log and $(QUICK)-2.log"
	printf '1\n2\n' | xargs -P 2 -I{} sh -c '$(BIN)/mira demo --set seed={} --set out=$(QUICK)-{} >> $(QUICK)-{}.log 2>&1'
	for baseline in sft filtered-bc mira; do \
		$(BIN)/mira compare "$(QUICK)-{seed}/evaluations/$$baseline" "$(QUICK)-{seed}/evaluations/recommended" --set seeds=[1,2] || exit 1; done

# Anchor-GRPO and its baselines on the suite seeking (docs/anchor.md), which takes hours, and one seed of two methods.
reproduce-anchor: setup
	$(BIN)/mira phases --config configs/anchor/policy.yaml
	$(BIN)/python benchmarks/anchor.py run

reproduce-anchor-quick: setup
	$(BIN)/mira phases --config configs/anchor/policy.yaml
	$(BIN)/python benchmarks/anchor.py run --methods sft grpo anchor --seeds 1 --questions 12 --rounds 3 --plan-rounds 6

setup:
	@VENV=$(VENV) PYTHON=$(PYTHON) scripts/setup.sh $(EXTRAS)

clean:
	rm -rf $(VENV) site .venv-peers .venv-peers-oldest .venv-lowest .venv-newest .venv-ray .venv-openenv .venv-tunix .venv-browsergym *.egg-info
