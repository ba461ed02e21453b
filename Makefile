# `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# mypy and import-linter read packages from the file system and do not follow
# package_dir of setup.cfg, so they are shown the same tree as links.
TREE := build/tree
# The agent as the image has it: setup.py. What judges times or memory runs this one.
COMPILED := build/compiled
PROTO := proto/netutil/v1alpha
PROTOC := build/protoc
RELEASE := build/release
POD_RESOURCES := proto/netutil/podresources
PODS_API := proto/netutil/podsapi
DEVICE_PLUGIN := proto/netutil/deviceplugin
CSI := proto/netutil/csi
BASELINES := tests/proto/baselines
H2LOAD := /usr/bin/h2load
PYTHON_COMPILED = PYTHONPATH=$(CURDIR):$(CURDIR)/$(COMPILED) $(BIN)/python
OF_COMPILED := tests/conformance tests/unit/connections tests/unit/grpcserver tests/unit/limits tests/security
define TEST_ALONE
$(BIN)/python -m pytest -m 'alone and interpreted' -n 0 tests/performance
$(PYTHON_COMPILED) -m pytest -m 'alone and not interpreted' -n 0 tests/performance
endef
# The folders of tests that start an agent in the lab. Many of the first two do so by tests/support/nodes.
AGENT_FOLDERS := tests/integration/ tests/security/
WITH_AGENT = $(AGENT_FOLDERS) $(filter-out $(addsuffix %,$(AGENT_FOLDERS)),$(sort $(dir $(shell \
  grep -rlE --include='*.py' --exclude-dir=support '\<lab[.](start_)?agent\>' tests))))

# Most tests wait for something (a kubelet's back-off, an agent's start), so two more run than can.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell echo $$((2 + $$(nproc))))

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-again test-compiled coverage test-hardened examples interop fuzz soak soak-connections churn e2e e2e-vm hostile trace bench bench-check bench-record lint proto proto-check proto-compat proto-release constraints requirements sbom reference wheel packages-check clean

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z0-9-]+:.*##/ { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## make the virtual environment that every other target uses

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	NETUTIL_COMPILE= $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[agent,cli,dev]'
	@touch $@

demo: venv  ## two "pods" on this machine ask one agent who they are (needs root, no cluster)
	@$(BIN)/python -m tests.support.lab.demo

test: venv lint $(COMPILED)/.installed  ## lint, types, import contract, and all tests
	$(BIN)/python -m pytest -m 'not alone and not packages'
	$(TEST_ALONE)

test-compiled: venv $(COMPILED)/.installed  ## the tests of the gRPC server and its limits, as the image has them compiled
	$(PYTHON_COMPILED) -m pytest -m 'not alone and not interpreted' $(OF_COMPILED)

test-again: venv $(COMPILED)/.installed  ## the tests that failed last, alone: a fault fails again, an effect of load does not
	$(BIN)/python -m pytest -n 0 --last-failed --last-failed-no-failures none
	$(TEST_ALONE)

coverage: venv  ## which lines and branches the tests run, those of the agents that they start too
	$(BIN)/python -m pytest -m 'not alone and not packages' --cov --cov-report=term-missing:skip-covered

examples: venv  ## client/examples: Python, shell, C and Go programs in a pod (needs root, Debian)
	$(BIN)/python -m tests.examples

interop: venv  ## real gRPC and HTTP/2 clients, some built here, ask the gRPC server (needs root, Debian, npm)
	$(BIN)/python -m tests.interop

test-hardened: venv  ## all tests that start an agent, confined as the hardened variant is (needs root)
	NETUTIL_TEST_CONFINED=1 $(BIN)/python -m pytest -m 'not alone' $(WITH_AGENT)

fuzz: venv  ## fuzz each parser for MINUTES (2), coverage-guided; TARGETS names some of them
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt 'atheris>=3.0'
	$(BIN)/python -m tests.fuzz $(or $(MINUTES),2) $(TARGETS)

soak: venv $(COMPILED)/.installed  ## every attack and fault at random for MINUTES (3), what is held before and after; SEED (root)
	$(PYTHON_COMPILED) -m tests.soak $(or $(MINUTES),3) $(SEED)

soak-connections: venv $(COMPILED)/.installed  ## open and close CONNECTIONS (1000000) engines and a tenth as many sockets: memory stays flat
	$(PYTHON_COMPILED) -m tests.soak.connections $(or $(CONNECTIONS),1000000)

churn: venv $(COMPILED)/.installed  ## CONTAINERS (2000) come, ask and go; then nothing is held of them (root)
	$(PYTHON_COMPILED) -m tests.soak.churn $(CONTAINERS)

e2e: venv  ## a real kubelet, then a whole cluster, on this machine (needs root, Debian); or your KUBECONFIG
	$(BIN)/python -m tests.e2e

e2e-vm: venv  ## the kernel's tests and a node under Debian's kernel 6.1, cgroup v2, systemd (needs root)
	$(BIN)/python -m tests.e2e.vm

hostile: venv $(COMPILED)/.installed  ## what other pods lose while one does its worst; ATTACKS names some, REPEAT runs each (needs root)
	@$(PYTHON_COMPILED) -m tests.performance $(if $(ATTACKS),--attacks "$(ATTACKS)") $(if $(REPEAT),--repeat $(REPEAT))

trace: venv $(TREE)  ## the way of a call: Python calls, files and moves between files of each method; METHODS names some (root, cc)
	@PYTHONPATH=$(CURDIR):$(CURDIR)/$(TREE) $(BIN)/python -m bench.trace $(METHODS) $(if $(FUNCTIONS),--functions) $(if $(OWN_PID),--own-pid)

bench: venv $(COMPILED)/.installed $(H2LOAD)  ## measure it against a bare gRPC server and sidecars, and draw the plot (root, Debian; QUICK=1)
	@mkdir -p build
	$(if $(NETUTIL_BENCH_LOOP),@$(BIN)/pip install --quiet --disable-pip-version-check $(NETUTIL_BENCH_LOOP))
	$(PYTHON_COMPILED) -m bench $(if $(QUICK),--quick) --json build/bench.json
	$(if $(QUICK),,$(PYTHON_COMPILED) -m bench.plot build/bench.json docs/bench.svg)

bench-check: venv $(COMPILED)/.installed $(H2LOAD)  ## fail if a row exceeds bench/recorded.json or newly misses a bound, three times in a row (root)
	$(PYTHON_COMPILED) -m bench.check

bench-record: venv $(COMPILED)/.installed $(H2LOAD)  ## set bench/recorded.json to what is measured now (root)
	$(PYTHON_COMPILED) -m bench.check --record

$(H2LOAD):
	apt-get update --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends nghttp2-client

lint: venv $(TREE)  ## ruff, mypy --strict, generated sync client, declared dependencies, words, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(TREE) $(BIN)/mypy --strict -p netutil.agent -p netutil.client
	MYPYPATH=$(TREE) $(BIN)/mypy --strict setup.py tests bench scripts client/examples/python/pinned.py
	$(BIN)/python -m scripts.unasync --check
	$(BIN)/python -m scripts.dependencies
	$(BIN)/python -m scripts.words
	$(BIN)/python -m scripts.compiled
	PYTHONPATH=$(TREE) $(BIN)/lint-imports --config setup.cfg
	PYTHONPATH=$(TREE) $(BIN)/python -m scripts.picture --check

$(COMPILED)/.installed: $(VENV)/.installed setup.py setup.cfg \
    $(shell find agent client proto -name '*.py' -o -name '*.pyi' -o -name '*.proto')
	@rm -rf $(COMPILED) build/lib* build/temp* build/bdist*
	NETUTIL_COMPILE=1 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --target $(COMPILED) .
	@rm -rf build/lib* build/temp* build/bdist*
	@touch $@

$(TREE): Makefile
	@mkdir -p $(TREE)/netutil
	@ln -sfn $(CURDIR)/agent $(TREE)/netutil/agent
	@ln -sfn $(CURDIR)/client $(TREE)/netutil/client
	@ln -sfn $(CURDIR)/$(PROTO) $(TREE)/netutil/v1alpha
	@ln -sfn $(CURDIR)/$(POD_RESOURCES) $(TREE)/netutil/podresources
	@ln -sfn $(CURDIR)/$(PODS_API) $(TREE)/netutil/podsapi
	@ln -sfn $(CURDIR)/$(DEVICE_PLUGIN) $(TREE)/netutil/deviceplugin
	@ln -sfn $(CURDIR)/$(CSI) $(TREE)/netutil/csi
	@touch $(TREE)

$(PROTOC)/.installed: proto/requirements.txt
	$(PYTHON) -m venv $(PROTOC)
	$(PROTOC)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

proto: venv $(PROTOC)/.installed  ## generate the Python code of proto/ again
	cd proto && PATH="$(CURDIR)/$(BIN):$$PATH" ../$(PROTOC)/bin/python -W ignore -m grpc_tools.protoc -I. \
	  --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	  netutil/v1alpha/*.proto netutil/podresources/v1/*.proto netutil/podsapi/v1alpha1/*.proto \
	  netutil/deviceplugin/v1beta1/*.proto netutil/csi/v1/*.proto

proto-check: proto  ## fail if the committed generated code is not what proto/ gives
	git diff --exit-code -- $(PROTO) $(POD_RESOURCES) $(PODS_API) $(DEVICE_PLUGIN) $(CSI)

proto-compat: venv  ## fail if proto/netutil/v1alpha breaks clients of the sidecar or of the last release
	for baseline in $(BASELINES)/*/; do $(BIN)/buf breaking --against "$$baseline" || exit 1; done

proto-release:  ## make the API of now the one that proto-compat compares with: a step of a release
	rm -rf $(BASELINES)/release && mkdir -p $(BASELINES)/release/netutil/v1alpha
	cp $(PROTO)/*.proto $(BASELINES)/release/netutil/v1alpha/

constraints:  ## set constraints.txt to the newest versions that setup.cfg allows
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade '.[agent,cli,dev,fuzz,release]'
	build/constraints/bin/pip freeze --exclude kube-netutil > constraints.txt
	$(MAKE) requirements

requirements: venv $(RELEASE)/.installed  ## set requirements*.txt, with the hashes for amd64 and arm64, by constraints.txt
	$(BIN)/python -m scripts.requirements $(RELEASE)/bin/uv

# The tools of the extra `release`, beside .venv: only maintainers need these.
$(RELEASE)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom uv
	@touch $@

sbom: venv $(RELEASE)/.installed  ## an SBOM (CycloneDX) of the image's Python packages for each architecture, in build/sbom
	$(BIN)/python -m scripts.sbom $(RELEASE)/bin/cyclonedx-py build/sbom

reference: venv $(TREE)  ## the API reference of the Python client, from its docstrings, in build/reference
	$(BIN)/python -m scripts.reference build/reference

wheel: venv  ## build the wheel into dist/
	@rm -rf dist build/lib build/bdist*
	$(BIN)/python -m build --wheel

packages-check: venv  ## install the wheel plainly, with each extra and with the lowest versions, into clean environments
	$(BIN)/python -m pytest -n 0 -m packages tests/distribution

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
