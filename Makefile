# The whole interface of the project; CI calls nothing else. `make help` lists it.

PYTHON ?= python3
# The onnxruntime to install: cpu, or gpu for onnxruntime-gpu. Never both in one environment.
RUNTIME ?= cpu
# The pip that reads dependency groups.
PIP_VERSION := 26.3

# Both onnxruntime packages install one module, so each has an environment of its own.
VENV := $(if $(filter gpu,$(RUNTIME)),.venv-gpu,.venv)
BIN := $(VENV)/bin
PY := $(BIN)/python
MODELS := sentiment nationality pos pos-online cloze g2p food prose
# Models whose step is faster in int8 and no worse on held-out data (DECISIONS.md has the figures).
INT8 := prose g2p
SERVE_GROUP := $(if $(filter gpu,$(RUNTIME)),serve-gpu,serve)
# Clients that tests/clients/ calls with, and what is there once one is installed.
CLIENTS := triton kserve node
NODE_CLIENT := tests/clients/node
installed_triton := .venv-clients/triton/.installed
installed_kserve := .venv-clients/kserve/.installed
installed_node := $(NODE_CLIENT)/node_modules/.installed
PROTOS := $(shell find proto -name '*.proto' | sort)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run tour serve check-models test test-all test-gpu test-clients proof fuzz conformance soak-tags check format \
	train export models proto bench study image clean need-model

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# -- environments: stamps, so that an installed one is not installed again ----------------

$(VENV)/.pip-$(PIP_VERSION):
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) must be Python 3.11 or newer with venv (Debian: apt-get install python3-venv); or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@touch $@

$(VENV)/.serve: pyproject.toml $(VENV)/.pip-$(PIP_VERSION)
	@echo "installing what serving needs (group $(SERVE_GROUP))"
	$(PY) -m pip install --quiet --group $(SERVE_GROUP)
	@touch $@

# The group dev holds what serving needs as well.
$(VENV)/.dev: pyproject.toml $(VENV)/.pip-$(PIP_VERSION)
	@test "$(RUNTIME)" = cpu || { echo "training and tests use RUNTIME=cpu"; exit 1; }
	@echo "installing what training and tests need (group dev)"
	$(PY) -m pip install --quiet --group dev
	@touch $(VENV)/.serve $@

# Nothing here needs torch: what is compared with is onnxruntime's CPU.
$(VENV)/.test: pyproject.toml $(VENV)/.pip-$(PIP_VERSION)
	@echo "installing what tests on CUDA need (group test-gpu)"
	$(PY) -m pip install --quiet --group test-gpu
	@touch $(VENV)/.serve $@

# Clients pin grpcio and protobuf otherwise than the service does: each has an environment.
.venv-clients/%/.installed: pyproject.toml
	@rm -f $@
	$(PYTHON) -m venv .venv-clients/$*
	.venv-clients/$*/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-clients/$*/bin/python -m pip install --quiet --group client-$*
	@touch $@

$(installed_node): $(NODE_CLIENT)/package.json $(NODE_CLIENT)/package-lock.json
	@rm -f $@
	cd $(NODE_CLIENT) && npm ci
	@touch $@

.PHONY: $(CLIENTS:%=client-%)
$(CLIENTS:%=client-%): client-%:
	@mkdir -p .venv-clients
	@test -e $(installed_$*) || echo "installing the client $*"
	@$(MAKE) --no-print-directory $(installed_$*) >.venv-clients/$*.log 2>&1 || \
		echo "the client $* cannot be installed, its tests are skipped: see .venv-clients/$*.log"

# -- serving --------------------------------------------------------------------------------

run: $(VENV)/.serve check-models ## install, verify the models, serve, give a tour, stay until Ctrl-C
	@$(PY) -m client.tour --stay

tour: $(VENV)/.serve check-models ## the same, then stop; exits non-zero if anything failed
	@$(PY) -m client.tour

serve: $(VENV)/.serve ## serve models/ until Ctrl-C; ARGS="--threads 2 …" adds flags
	@$(PY) -m service serve $(ARGS)

check-models: $(VENV)/.serve ## verify every file of every bundled model
	@$(PY) -m service check

# -- from data to bundle --------------------------------------------------------------------

need-model:
	@test -n "$(MODEL)" || { echo "say which: MODEL=$(firstword $(MODELS)) (of: $(MODELS))"; exit 2; }

train: need-model $(VENV)/.dev ## train MODEL=… into runs/ (goes on where it was stopped)
	@$(MAKE) --no-print-directory runs/$(MODEL)/model.pt

RUNS := $(MODELS:%=runs/%/model.pt)
BUNDLES := $(MODELS:%=models/%/1/manifest.json)
# What a run is exported with. A bundle exported anew from itself keeps the precisions it has.
precision_of = $(if $(filter $(1),$(INT8)),--int8)

$(RUNS): runs/%/model.pt: | $(VENV)/.dev
	$(PY) -m training.$(subst -,_,$*) $(if $(wildcard runs/$*/checkpoint.pt),--resume)

export: need-model $(VENV)/.dev ## export MODEL=… from runs/, or else anew from its own bundle
	$(PY) -m export $(MODEL) $(if $(wildcard runs/$(MODEL)/model.pt),$(call precision_of,$(MODEL)),--bundle models/$(MODEL)/1)

$(BUNDLES): models/%/1/manifest.json: runs/%/model.pt
	$(PY) -m export $* $(call precision_of,$*)

models: $(BUNDLES) ## train what has no run in runs/, export what changed: all models, from data to bundle

# -- checks ---------------------------------------------------------------------------------

test: $(VENV)/.dev ## run the tests, two files at a time
	$(PY) -m pytest -n 2 --dist loadfile

test-all: $(VENV)/.dev ## export and check every design, not only every pair of options: an hour or two
	$(PY) -m pytest --all-designs tests/export/test_designs.py $(ARGS)

proof: $(VENV)/.dev ## 1,200 mixed requests for each precision and thread count, compared by bits; 10,000 that leave
	$(PY) -m pytest --proof tests/promise $(ARGS)

fuzz: $(VENV)/.dev ## send 50,000 mutated messages to every method of both services; ARGS="--fuzz-name 2" draws others
	$(PY) -m pytest --fuzz tests/fuzz $(ARGS)

conformance: $(VENV)/.dev ## test any endpoint of the Open Inference Protocol, TARGET=host:port; see docs/conformance.md
	@test -n "$(TARGET)" || { echo "say which: TARGET=host:port"; exit 2; }
	@$(PY) -m tests.conformance $(TARGET) $(ARGS)

soak-tags: $(VENV)/.dev ## feed 200,000 tokens to one stream of tags: memory and processor time, first to last
	$(PY) -m pytest --soak -k soak tests/service/rpc/test_tag_streams.py $(ARGS)

test-gpu: ## on CUDA: graphs against the CPU's, streams, the bench; fails where there is no CUDA
	@$(MAKE) --no-print-directory RUNTIME=gpu test-on-cuda

test-clients: $(VENV)/.dev $(CLIENTS:%=client-%) ## existing clients, unmodified, against the running service
	$(PY) -m pytest -m clients -rPs --confcutdir=tests/clients tests/clients $(ARGS)

.PHONY: test-on-cuda
test-on-cuda: $(VENV)/.test
	@$(PY) -m tests.gpu.cuda
	$(PY) -m pytest -m gpu --confcutdir=tests/gpu tests/gpu
	$(PY) -m bench --device cuda --only kernels streams --rounds 3 --streams 1 16 64 256 $(ARGS)

check: $(VENV)/.dev ## formatter, linters, types, import contracts, stub drift
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(PY) -m tests.stub_drift

format: $(VENV)/.dev ## format and fix what can be fixed
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

proto: $(VENV)/.dev ## regenerate the stubs in unroll/
	$(PY) -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

bench: $(VENV)/.dev ## measure everything against the bars, in under ten minutes; ARGS="--only streams …"
	$(PY) -m bench $(ARGS)

study: $(VENV)/.dev ## rerun the lecture's arguments, write docs/study.md and docs/designs.md; goes on where it stopped
	@OMP_NUM_THREADS=1 $(PY) -m study $(ARGS)

image: ## build the container image (needs podman; see deploy/README.md)
	deploy/build-image.sh

clean: ## remove the environment, training runs and caches (data and models stay)
	rm -rf .venv .venv-gpu .venv-clients $(NODE_CLIENT)/node_modules
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
