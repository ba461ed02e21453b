"""The Go example as a module: its code is generated from the .proto, its go.sum has its modules.

No Go module proxy can be reached here, so the module build itself is not tried: test_examples.py
builds the same files with the packages of Debian.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

GO = ROOT / "client" / "examples" / "go"
GENERATORS = {"protoc": "3.21.12", "protoc-gen-go": "v1.28.1", "protoc-gen-go-grpc": "1.0"}


def versions() -> dict[str, str]:
    """The last word that each generator prints about its version; "" for one that is missing."""
    found = {}
    for name in GENERATORS:
        path = shutil.which(name)
        command = [path or "", "--version"]
        text = path and subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name] = text.split()[-1] if text else ""
    return found


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    if versions() != GENERATORS:
        pytest.skip(f"needs the generators of Debian 12: {GENERATORS}; make examples installs them")
    subprocess.run([GO / "generate.sh", tmp_path], check=True)
    committed = {path.name: path.read_text() for path in (GO / "netutilpb").iterdir()}
    generated = {path.name: path.read_text() for path in (tmp_path / "netutilpb").iterdir()}
    assert committed == generated, "run client/examples/go/generate.sh"


def test_go_sum_has_both_hashes_of_each_module() -> None:
    required = set(re.findall(r"^\t(\S+ v\S+)", (GO / "go.mod").read_text(), re.MULTILINE))
    assert len(required) == 6
    lines = (GO / "go.sum").read_text().splitlines()
    hashes = dict(line.rsplit(" h1:", 1) for line in lines)
    assert len(hashes) == len(lines)
    assert all(len(base64.b64decode(text, validate=True)) == 32 for text in hashes.values())
    assert required | {f"{one}/go.mod" for one in required} <= hashes.keys()
