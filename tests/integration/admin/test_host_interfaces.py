"""`host_interfaces` of DescribeNode, by a real agent."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from netutil.agent.admin.host_interfaces import report_interfaces
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.parsers.net_dev import parse_net_dev
from netutil.client import NodeClient
from netutil.client.models.node import DescribedNode
from netutil.client.rpc import requests

from tests.support.lab.confined import CONFINED
from tests.support.lab.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.namespaces import Namespace, network_namespace

pytestmark = [pytest.mark.root, needs_lab]

MANY = 1000
"""Pairs of veth: a node with 2 000 links beside lo."""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with network_namespace() as made:
        yield made


def may_enter_the_hosts() -> bool:
    """A test machine may be a container, whose first process has more capabilities than root."""
    enter = ["nsenter", "-t", "1", "-n", "true"]
    return not CONFINED and subprocess.run(enter, check=False, capture_output=True).returncode == 0


def described(lab: Lab, *, interfaces: bool) -> DescribedNode:
    with NodeClient(lab.admin_socket, timeout_seconds=20) as client:
        return client.call(requests.described_node(interfaces=interfaces))


def names_of(pid: int) -> set[str]:
    return set(parse_net_dev(Path(f"/proc/{pid}/net/dev").read_bytes()))


@pytest.mark.parametrize("network", ["the host's", "its own"])
def test_an_agent_describes_the_hosts_interfaces(network: str) -> None:
    """`its own` is as the manifests start it: with hostPID, without hostNetwork."""
    alone = 'ip link set lo up; ip link add only-here type bridge; exec "$@"'
    around = ("unshare", "--net", "sh", "-c", alone, "sh") if network == "its own" else ()
    with Lab() as lab:
        agent = lab.agent(around=around)
        assert ("only-here" in names_of(agent.pid)) == bool(around)
        assert described(lab, interfaces=False).host_interfaces is None
        answer = described(lab, interfaces=True)
    found, counts = answer.host_interfaces, answer.cpu_counts
    assert counts is not None and counts.logical == sum(cpu.online for cpu in answer.cpus)
    assert found is not None and found.interfaces is not None and not found.truncated
    names = {one.name for one in found.interfaces}
    assert "lo" in names and "only-here" not in names
    (lo,) = (one for one in found.interfaces if one.name == "lo")
    assert lo.counters is not None and (lo.speed_megabits, lo.duplex) == (None, None)
    if may_enter_the_hosts():
        assert (lo.index, lo.kind, lo.master, found.error) == (1, "", "", None)
    else:
        assert (lo.index, lo.kind, lo.up) == (None, None, None)
        assert found.error is not None
        assert found.error.reason == "NETWORK_NAMESPACE_NOT_READABLE"


async def test_the_report_of_2000_links_is_complete(namespace: Namespace) -> None:
    pairs = [f"link add left{n} type veth peer name right{n}\n" for n in range(MANY)]
    namespace.batch("link add br0 type bridge\n", *pairs, "link set left7 master br0 up\n")
    reads = ReadPool(timeout_seconds=60)
    report = await report_interfaces(reads, "/", f"/proc/{namespace.pid}")
    assert len(report.interfaces) == 2 * MANY + 2
    assert not report.HasField("error")
    assert report.ByteSize() < 400_000
    (left7,) = (one for one in report.interfaces if one.name == "left7")
    (shown,) = namespace.ip("link", "show", "left7")
    assert (left7.index, left7.mac, left7.mtu) == (
        *(shown["ifindex"], shown["address"], shown["mtu"]),
    )
    assert (left7.kind, left7.master, left7.up) == ("veth", "br0", True)


async def test_links_are_reported_if_their_speeds_hang(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    read_speeds = "netutil.agent.admin.host_interfaces.read_speeds"
    monkeypatch.setattr(read_speeds, lambda *_: released.wait(60))
    try:
        report = await report_interfaces(ReadPool(timeout_seconds=5), "/", f"/proc/{namespace.pid}")
    finally:
        released.set()
    assert report.error.reason == "READ_TIMED_OUT"
    assert [one.name for one in report.interfaces] == ["lo"]


async def test_a_namespace_that_cannot_be_read_is_an_error() -> None:
    with network_namespace() as ended:
        pid = ended.pid
    report = await report_interfaces(ReadPool(), "/", f"/proc/{pid}")
    assert report.error.reason == "NETWORK_NAMESPACE_NOT_READABLE"
    assert not report.interfaces
