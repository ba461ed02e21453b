"""Imports are declared where they are made: scripts/dependencies.py."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import pytest

from scripts import dependencies
from scripts.dependencies import PLAIN, Part, declarations, findings, imports_of, owner_of, owners

SETUP_CFG = """
[options]
install_requires =
    # A comment.
    grpcio>=1.49.1,<2
    google_api.protos>=1
[options.extras_require]
cli =
    PyYAML>=6.0
"""
DECLARED = {PLAIN: frozenset({"grpcio"}), "cli": frozenset({"pyyaml"})}
OWNERS = {"grpc": "grpcio", "grpc.aio": "grpcio", "yaml": "pyyaml", "hpack": "hpack"}
PARTS = (
    Part("library", ("lib",), (PLAIN,), ("lib/cli",)),
    Part("tool", ("lib/cli",), (PLAIN, "cli")),
)


def found(root: Path, library: str, tool: str) -> list[str]:
    (root / "lib" / "cli").mkdir(parents=True)
    (root / "lib" / "rpc.py").write_text(library)
    (root / "lib" / "cli" / "main.py").write_text(tool)
    return findings(PARTS, root, DECLARED, OWNERS)


def test_this_repository_declares_its_imports() -> None:
    assert dependencies.main() == 0


def test_declarations_are_those_of_setup_cfg() -> None:
    assert declarations(SETUP_CFG) == {
        PLAIN: {"grpcio", "google-api-protos"},
        "cli": {"pyyaml"},
    }


def test_declared_imports_cause_no_finding(tmp_path: Path) -> None:
    assert found(tmp_path, "import os, grpc.aio", "def f():\n    from yaml import load\n") == []


def test_the_library_may_not_import_what_its_extra_has(tmp_path: Path) -> None:
    (line,) = found(tmp_path, "import grpc\nimport yaml\n", "import yaml\n")
    assert line == "lib/rpc.py:2: yaml: pyyaml is not declared for the library"


def test_an_undeclared_import_is_a_finding(tmp_path: Path) -> None:
    (line,) = found(tmp_path, "import grpc", "import yaml\nimport hpack\n")
    assert line == "lib/cli/main.py:2: hpack: hpack is not declared for the tool"


def test_a_module_of_no_distribution_is_a_finding(tmp_path: Path) -> None:
    (line,) = found(tmp_path, "import grpc", "import yaml\nimport nowhere.at_all\n")
    assert line == "lib/cli/main.py:2: nowhere.at_all: no installed distribution has this module"


def test_a_declaration_without_an_import_is_a_finding(tmp_path: Path) -> None:
    (line,) = found(tmp_path, "import grpc", "import os")
    assert line.startswith("setup.cfg: cli declares pyyaml")


def test_a_missing_part_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        findings(PARTS, tmp_path, DECLARED, OWNERS)


def test_a_string_of_import_module_counts() -> None:
    source = 'from importlib import import_module\nimport_module("google.rpc.status_pb2")\n'
    modules = [one.module for one in imports_of(source, "file.py")]
    assert modules == ["importlib.import_module", "google.rpc.status_pb2"]


def test_a_relative_import_does_not_count() -> None:
    assert list(imports_of("from . import sibling\nfrom .other import name\n", "file.py")) == []


def test_shared_namespaces_belong_to_their_owners() -> None:
    by_module = owners(distributions())
    assert owner_of("google.rpc.status_pb2", by_module) == "googleapis-common-protos"
    assert owner_of("google.protobuf.message.Message", by_module) == "protobuf"
    assert owner_of("google", by_module) is None
    assert owner_of("yaml.CSafeLoader", by_module) == "pyyaml"
