"""The documents show the output of the command for a pod that has its devices by claims.

tests/integration/cli/test_dpdk_node.py compares the examples of other pods with a real agent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from netutil.client.cli import commands

from tests.support.answers.dpdk import file, view_of
from tests.support.fakes.agent import FakeAgent
from tests.support.repository import ROOT
from tests.unit.client import claim_answers
from tests.unit.client.command import Netutil

DOCUMENTS = ROOT / "docs"
EXAMPLE = re.compile(
    r"^```text\n\$ netutil(?P<arguments>.*)\n(?P<shown>(?s:.*?))^```$", re.MULTILINE
)

PYTHON = re.compile(r"^```python\n((?s:.*?))^```$", re.MULTILINE)


def examples() -> list[Any]:
    return [
        pytest.param(found["arguments"].split(), found["shown"], id=f"{path.name}:{number}")
        for path in sorted(DOCUMENTS.rglob("*.md"))
        for number, found in enumerate(EXAMPLE.finditer(path.read_text(encoding="utf-8")))
    ]


@pytest.fixture
def _claims(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent.everything.CopyFrom(claim_answers.everything())
    agent.interfaces.CopyFrom(claim_answers.interfaces())
    agent.resources.CopyFrom(claim_answers.resources())
    agent.news.put(claim_answers.changed())
    for name in ("dev/vfio/vfio", "dev/vfio/42"):
        file(tmp_path / name)
    for directory in ("dev/hugepages", "var/run", "sys/kernel/mm/hugepages"):
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.setattr(commands, "read_own_view", lambda: view_of(tmp_path))


@pytest.mark.usefixtures("_claims")
@pytest.mark.parametrize(("arguments", "shown"), examples())
def test_the_documents_show_what_the_command_prints(
    netutil: Netutil, arguments: list[str], shown: str
) -> None:
    ended = netutil(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == shown


def test_each_document_about_claims_has_an_example() -> None:
    names = {example.id.partition(":")[0] for example in examples()}
    assert names >= {"devices.md", "interfaces.md", "dpdk.md"}


@pytest.mark.usefixtures("_claims")
def test_the_python_example_prints_each_attribute(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETUTIL_SOCKET", agent.path)
    blocks = PYTHON.findall((DOCUMENTS / "use.md").read_text("utf-8"))
    (example,) = (block for block in blocks if "device.attributes" in block)
    exec(compile(example, "use.md", "exec"), {})  # noqa: S102 - the document's own example
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "n3 0000:3b:01.2"
    assert "resource.kubernetes.io/numaNode int 0" in lines
    assert len(lines) == 1 + len(claim_answers.virtual_function().attributes)


@pytest.mark.usefixtures("_claims")
def test_the_lines_of_a_watched_claim_are_those_printed(netutil: Netutil) -> None:
    ended = netutil("watch", "--timeout", "1s")
    lines = ended.out.splitlines(keepends=True)[1:]
    assert len(lines) == 3
    assert f"```\n{''.join(lines)}```\n" in (DOCUMENTS / "facts/watch.md").read_text("utf-8")
