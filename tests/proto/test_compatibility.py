"""`make proto-compat` fails for a change that breaks clients, and only for such a change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

BASELINES = Path(__file__).parent / "baselines"
BUF = Path(sys.executable).with_name("buf")
API = Path("proto/netutil/v1alpha/netutil.proto")


def differences(tree: Path, baseline: Path) -> str:
    """Return buf's list of incompatible differences in a copy of proto/ and buf.yaml, or ""."""
    found = subprocess.run(
        [BUF, "breaking", "--against", baseline],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode in (0, 100), found.stderr  # 100: buf found differences
    assert (found.returncode == 100) == bool(found.stdout)
    return found.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what buf reads, to change."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("*.py*"))
    return tmp_path


def replace(tree: Path, old: str, new: str) -> None:
    text = (tree / API).read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    (tree / API).write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("baseline", sorted(BASELINES.iterdir()), ids=lambda path: path.name)
def test_the_api_is_compatible_with_a_baseline(baseline: Path, tree: Path) -> None:
    assert list(baseline.rglob("*.proto"))
    assert differences(tree, baseline) == ""


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ("  string cpuset = 1;", "", 'field "1" with name "cpuset"'),
        ("  string cpuset = 1;", "  string cpuset = 99;", 'field "1" with name "cpuset"'),
        ("  string cpuset = 1;", "  string cpu_set = 1;", 'name from "cpuset" to "cpu_set"'),
        ("  string cpuset = 1;", "  bytes cpuset = 1;", 'type from "string" to "bytes"'),
        ("  string cpuset = 1;", "  repeated string cpuset = 1;", "cardinality"),
        ("  map<string, string> envs = 1;", "  map<string, bytes> envs = 1;", "EnvsEntry"),
        ("rpc GetEnv(EnvRequest)", "rpc GetEnvironment(EnvRequest)", '"GetEnv"'),
        ("returns (EnvResponse)", "returns (stream EnvResponse)", "server streaming"),
    ],
)
def test_a_breaking_change_is_reported(tree: Path, old: str, new: str, reported: str) -> None:
    replace(tree, old, new)
    assert reported in differences(tree, BASELINES / "sidecar")


def test_an_additive_change_is_not_reported(tree: Path) -> None:
    replace(tree, "  string cpuset = 1;", "  string cpuset = 1;\n  string added = 999;")
    assert differences(tree, BASELINES / "sidecar") == ""
