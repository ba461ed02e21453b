"""The node's interfaces are what `ip -j` shows in the namespace of its first process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from netutil.agent.errors import FailedPrecondition, Reason, ResourceExhausted, Unavailable
from netutil.agent.facts import host_interfaces, rtnetlink
from netutil.agent.facts.host_interfaces import (
    HostInterface,
    LinkSpeed,
    read_cpu_counts,
    read_host_interfaces,
    read_speeds,
)
from netutil.agent.facts.topology import read_topology
from netutil.agent.parsers.rtnetlink import NO_COUNTERS, LinkMessage

from tests.support.namespaces import Namespace, network_namespace

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")
MANY = 1000
"""Pairs of veth: a node with 2 000 links beside lo."""
PRINT_INTERFACES = """
import sys
from netutil.agent.facts.host_interfaces import read_host_interfaces
found = read_host_interfaces(sys.argv[1])
print(sorted(one.name for one in found.interfaces))
print([one.link for one in found.interfaces if one.link is not None])
print(found.error.message)
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with network_namespace() as made:
        yield made


def links_of_psutil() -> dict[str, Any]:
    return dict(psutil.net_io_counters(pernic=True, nowrap=False))


def process_of(namespace: Namespace) -> str:
    return f"/proc/{namespace.pid}"


def as_ip_shows(link: dict[str, Any]) -> tuple[object, ...]:
    stats = link["stats64"]
    return (
        *(link["ifindex"], link["ifname"], link.get("linkinfo", {}).get("info_kind", "")),
        *(link["address"], link["mtu"], link["operstate"], "UP" in link["flags"]),
        link.get("master", ""),
        *(stats[way][name] for way in ("rx", "tx") for name in ("bytes", "packets", "errors")),
    )


def as_read(one: HostInterface) -> tuple[object, ...]:
    link, counters = one.link, one.counters
    assert link is not None
    return (
        *(link.index, one.name, link.kind, link.mac, link.mtu, link.operational_state, link.up),
        one.master,
        *(counters.rx_bytes, counters.rx_packets, counters.rx_errors),
        *(counters.tx_bytes, counters.tx_packets, counters.tx_errors),
    )


@root
@pytest.mark.root
def test_interfaces_are_what_ip_shows(namespace: Namespace) -> None:
    for line in (
        "link set lo up",
        "link add eth0 mtu 1400 type veth peer name peer0",
        "link add br0 type bridge",
        "link set peer0 master br0",
        "address add 192.0.2.5/24 dev eth0",
        "link set eth0 up",
    ):
        namespace.ip(*line.split())
    send = "import socket; socket.socket(type=2).sendto(b'x', ('127.0.0.1', 9))"
    enter = ("nsenter", "-t", str(namespace.pid), "-n")
    subprocess.run([*enter, sys.executable, "-c", send], check=True)
    deadline = time.monotonic() + 30
    while True:
        found = read_host_interfaces(process_of(namespace))
        shown = [as_ip_shows(link) for link in namespace.ip("link")]
        if [as_read(one) for one in found.interfaces] == shown or time.monotonic() > deadline:
            break
    assert [as_read(one) for one in found.interfaces] == shown
    assert {one.name for one in found.interfaces} == {"lo", "eth0", "peer0", "br0"}
    assert (found.truncated, found.error) == (False, None)
    assert found.interfaces[0].counters.tx_bytes > 0


@root
@pytest.mark.root
def test_a_node_with_2000_links_is_read(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [f"link add left{n} type veth peer name right{n}\n" for n in range(MANY)]
    namespace.batch(*pairs)
    found = read_host_interfaces(process_of(namespace))
    assert (len(found.interfaces), found.truncated) == (2 * MANY + 1, False)
    monkeypatch.setattr(host_interfaces, "MAX_INTERFACES", 100)
    found = read_host_interfaces(process_of(namespace))
    assert (len(found.interfaces), found.truncated) == (100, True)
    monkeypatch.setattr(rtnetlink, "MAX_DUMP_BYTES", 100_000)
    with pytest.raises(ResourceExhausted, match="more than 100000 bytes") as refused:
        read_host_interfaces(process_of(namespace))
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_TOO_LARGE
    assert "the node's network namespace" in refused.value.message
    assert refused.value.read == "rtnetlink in the node's network namespace"


@root
@pytest.mark.root
def test_an_error_of_changing_links_names_the_node(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtnetlink, "_NLM_F_DUMP_INTR", 0x2)  # NLM_F_MULTI: each message has it
    with pytest.raises(FailedPrecondition) as refused:
        read_host_interfaces(process_of(namespace))
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_CHANGING
    assert "the node's network namespace" in refused.value.message
    assert refused.value.read == "rtnetlink in the node's network namespace"
    assert "caller" not in str(refused.value)


@root
@pytest.mark.root
def test_only_counters_are_known_without_the_capability(namespace: Namespace) -> None:
    namespace.ip(*["link", "add", "eth7", "type", "veth", "peer", "name", "eth8"])
    names, links, error = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"),
            *(sys.executable, "-c", PRINT_INTERFACES, process_of(namespace)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert (names, links) == ("['eth7', 'eth8', 'lo']", "[]")
    assert "may not enter it (Operation not permitted), so only counters are known" in error


@root
@pytest.mark.root
def test_the_agents_own_namespace_is_not_taken_for_the_nodes() -> None:
    script = "from netutil.agent.facts.host_interfaces import *; read_host_interfaces()"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "it cannot be distinguished from the agent's own" in done.stderr
    done = subprocess.run(  # a node that is a container: its init has another network
        [
            *("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c"),
            'unshare --net "$@"; exit $?',
            *("init", sys.executable, "-c", script),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@root
@pytest.mark.root
def test_a_process_that_has_ended_is_an_error() -> None:
    with network_namespace() as ended:
        process = process_of(ended)
    with pytest.raises(Unavailable) as failed:
        read_host_interfaces(process)
    assert failed.value.reason is Reason.NETWORK_NAMESPACE_NOT_READABLE


@root
@pytest.mark.root
def test_psutil_does_not_see_the_namespace_of_its_thread(namespace: Namespace) -> None:
    """Why the agent does not use it here. If this fails, a newer psutil may do."""
    namespace.ip(*["link", "add", "only-there", "type", "bridge"])
    descriptor = os.open("ns/net", os.O_RDONLY, dir_fd=namespace.directory)
    try:
        assert "only-there" not in rtnetlink.inside(
            descriptor, lambda: psutil.net_io_counters(pernic=True)
        )
    finally:
        os.close(descriptor)


def test_cpus_are_counted_as_the_topology_says() -> None:
    running = [cpu for cpu in read_topology("/") if cpu.online]
    counts = read_cpu_counts()
    assert counts.logical == len(running)
    assert counts.cores == len({(cpu.socket, cpu.core) for cpu in running})


def hardware(name: str, device: str) -> HostInterface:
    link = LinkMessage(
        *(2, name, "", "", 1500, "UP", True, NO_COUNTERS, None, None, None, None),
        *("pci", device, None),
    )
    return HostInterface(name, NO_COUNTERS, link)


def speed_file(tree: Path, device: str, name: str, speed: str, duplex: str) -> None:
    directory = tree / "sys/bus/pci/devices" / device / "net" / name
    directory.mkdir(parents=True)
    (directory / "speed").write_text(f"{speed}\n", encoding="ascii")
    (directory / "duplex").write_text(f"{duplex}\n", encoding="ascii")


def test_speeds_are_read_by_the_device_of_a_link(tmp_path: Path) -> None:
    speed_file(tmp_path, "0000:3b:00.0", "ens1", "25000", "full")
    speed_file(tmp_path, "0000:3b:00.1", "ens2", "-1", "unknown")
    links = [
        hardware("ens1", "0000:3b:00.0"),
        hardware("ens2", "0000:3b:00.1"),
        hardware("ens3", "0000:3b:00.2"),
        HostInterface("denied", NO_COUNTERS),
        hardware("virtual", ""),
    ]
    assert read_speeds(str(tmp_path), links) == {
        "ens1": LinkSpeed(25000, "full"),
        "ens2": LinkSpeed(None, None),
        "ens3": LinkSpeed(None, None),
    }


def test_the_speeds_of_256_links_are_read(tmp_path: Path) -> None:
    links = [hardware(f"ens{n}", "0000:3b:00.0") for n in range(300)]
    assert len(read_speeds(str(tmp_path), links)) == 256
