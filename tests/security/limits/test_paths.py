"""The agent goes on serving after a call with any bytes as its path."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support import raw_calls
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.agent_node import netutil

pytestmark = pytest.mark.xdist_group("hostile")


@pytest.fixture(scope="module")
def node() -> Iterator[tuple[LabAgent, LabContainer, LabContainer]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        hostile = lab.pod("hostile").container("app")
        other = lab.pod("other").container("app")
        lab.write_pod_list()
        yield lab.agent(), hostile, other


@pytest.mark.parametrize(
    "path",
    [b"/v1alpha.NetUtil/\xff\xfe", b"\xff", b"", b"/", b"no-slash", b"/\0/\n", b"/" + b"x" * 4000],
    ids=["no UTF-8", "one byte", "nothing", "a slash", "no slash", "control", "long"],
)
def test_a_call_to_any_path_ends_no_other_callers_service(
    path: bytes, node: tuple[LabAgent, LabContainer, LabContainer]
) -> None:
    agent, hostile, other = node
    done = hostile.run(raw_calls.command("path", path.hex()))
    assert done.returncode == 0, done.stderr
    assert netutil(other, "whoami")["name"] == "other"
    assert agent.running
