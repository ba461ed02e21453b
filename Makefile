# The front door. `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# mypy and import-linter read packages from the file system and do not follow
# package_dir of setup.cfg, so they are shown the same tree as links.
TREE := build/tree
PROTO := proto/netutil/v1alpha
POD_RESOURCES := proto/netutil/podresources

.DEFAULT_GOAL := help
.PHONY: help venv demo test e2e-vm lint proto proto-check constraints wheel packages-check clean

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z0-9-]+:.*##/ { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## make the virtual environment that every other target uses

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv  ## two "pods" on this machine ask one agent who they are (needs root, no cluster)
	@$(BIN)/python -m tests.lab.demo

test: venv lint  ## lint, types, import contract, and all tests with coverage
	$(BIN)/python -m pytest

e2e-vm: venv  ## the kernel's part of the tests under Debian's kernel 6.1, cgroup v2, systemd (needs root)
	$(BIN)/python -m tests.e2e.vm

lint: venv $(TREE)  ## ruff, mypy --strict, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(TREE) $(BIN)/mypy --strict -p netutil.agent -p netutil.client
	MYPYPATH=$(TREE) $(BIN)/mypy --strict tests
	PYTHONPATH=$(TREE) $(BIN)/lint-imports --config setup.cfg

$(TREE): Makefile
	@mkdir -p $(TREE)/netutil
	@ln -sfn $(CURDIR)/agent $(TREE)/netutil/agent
	@ln -sfn $(CURDIR)/client $(TREE)/netutil/client
	@ln -sfn $(CURDIR)/$(PROTO) $(TREE)/netutil/v1alpha
	@ln -sfn $(CURDIR)/$(POD_RESOURCES) $(TREE)/netutil/podresources
	@touch $(TREE)

proto: venv  ## generate the Python code of proto/ anew
	cd proto && PATH="$(CURDIR)/$(BIN):$$PATH" ../$(BIN)/python -m grpc_tools.protoc -I. \
	  --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	  netutil/v1alpha/*.proto netutil/podresources/v1/*.proto

proto-check: proto  ## fail if the committed generated code is not what proto/ gives
	git diff --exit-code -- $(PROTO) $(POD_RESOURCES)

constraints:  ## set constraints.txt to the newest versions that setup.cfg allows
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade '.[dev]'
	build/constraints/bin/pip freeze --exclude netutil > constraints.txt

wheel: venv  ## build the wheel into dist/
	@rm -rf dist build/lib build/bdist*
	$(BIN)/python -m build --wheel

packages-check: wheel  ## install the wheel, and the tree, each into a clean environment
	for what in dist/netutil-*.whl .; do \
	  rm -rf build/packages && $(PYTHON) -m venv build/packages && \
	  build/packages/bin/pip install --quiet --disable-pip-version-check -c constraints.txt $$what && \
	  (cd / && $(CURDIR)/build/packages/bin/python -c "import netutil.agent.daemon, netutil.client, \
	importlib.resources as r; p = r.files('netutil.v1alpha'); \
	assert all((p / n).is_file() for n in ('netutil.proto', 'netutil_pb2.pyi', 'py.typed')); \
	p = r.files('netutil.podresources.v1'); \
	assert all((p / n).is_file() for n in ('podresources.proto', 'podresources_pb2.pyi', 'py.typed'))") && \
	  build/packages/bin/netutil --help >/dev/null && build/packages/bin/netutil-agent --help >/dev/null \
	  || exit 1; done

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
