"""`netutil node map` of a real agent: a /sys of two NUMA nodes, PodResources served, four pods."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from netutil.agent.parsers.userspace_cni import CONFIGURATION_DATA
from netutil.client import NodeClient
from netutil.client.rpc import requests
from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.lab.confined import CONFINED
from tests.support.lab.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.dpdk_node import ENTER, podresources
from tests.support.nodes.sriov_node import OFFLINE_CPU, PF, PLAIN, VFIO_VF, VFS, build_sriov_node
from tests.support.repository import ROOT
from tests.support.svg_reader import Drawn, faults, read

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("node-map")]

DOCUMENTED = ROOT / "docs/node-map.svg"
CHANGING = re.compile(r"Linux [^,<]+|\d{4}-\d\d-\d\dT[0-9:.]+Z")
TREASURE = "correct-horse-battery-staple"


def network(interface: str, address: str) -> str:
    """As Multus writes it of the pod's own network and a PCI function."""
    device = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": address}}
    return json.dumps(
        [
            {"name": "cbr0", "interface": "eth0", "default": True},
            {"name": "telco/n3", "interface": interface, "device-info": device},
        ]
    )


def allocated() -> v1.PodResources:
    """Return the allocations of the static CPU manager and a device plugin for telco/upf."""
    devices = v1.ContainerDevices(resource_name="intel.com/n3", device_ids=[VFIO_VF])
    container = v1.ContainerResources(name="app", devices=[devices], cpu_ids=[1])
    return v1.PodResources(name="upf", namespace="telco", containers=[container])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        kubelet.pods = [allocated()]
        near = {NETWORK_STATUS: network("net1", VFIO_VF)}
        upf = lab.pod("upf", namespace="telco", qos="guaranteed", annotations=near)
        amounts = {"cpu": "1", "memory": "1Gi", "intel.com/n3": "1"}
        app = upf.container("app", cpus="1", env={"KEY": TREASURE})
        app.resources = {"requests": amounts, "limits": amounts}
        second = {NETWORK_STATUS: network("net1", VFS[0])}
        lab.pod("probe", namespace="telco", annotations=second).container("app", cpus="0")
        far = {NETWORK_STATUS: network("rdma0", PLAIN)}
        feed = lab.pod("feed-handler", namespace="trading", annotations=far)
        feed.container("app", cpus="0")
        feed.container("side", cpus="0")
        lab.pod("web-0").container("app", cpus="0")
        root = build_sriov_node(lab.directory / "node")
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, root)
        lab.agent(f"--host-root={root}", f"--pod-resources={kubelet.path}", around=enter)
        yield lab


def map_of(lab: Lab, output: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "netutil.client", "node", "map", "-o", output],
        env={**os.environ, "NETUTIL_ADMIN_SOCKET": str(lab.admin_socket)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def text(lab: Lab) -> str:
    return map_of(lab, "svg")


@pytest.fixture(scope="module")
def drawn(text: str) -> Drawn:
    return read(text)


def test_the_node_is_described(lab: Lab) -> None:
    with NodeClient(lab.admin_socket, timeout_seconds=20) as client:
        node = client.call(requests.described_node())
    assert [cpu.id for cpu in node.cpus] == list(range(8))
    assert [cpu.id for cpu in node.cpus if not cpu.online] == [OFFLINE_CPU]
    assert {cpu.exclusive for cpu in node.cpus} == {None}
    assert [one.pci.address for one in node.network_devices] == [PF, *VFS, PLAIN]
    assert node.network_devices[0].interfaces == ("ens1f0",)
    assert (node.kernel, node.errors) == (os.uname().release, ())
    assert node.node_name


def test_the_map_of_a_real_agent_is_whole_and_readable(drawn: Drawn) -> None:
    assert list(faults(drawn)) == []
    names = [thing.name for thing in drawn.things if thing.name is not None]
    assert names == ["telco/probe", "telco/upf", "trading/feed-handler", "default/web-0"]


def test_it_shows_exclusive_and_shared_cpus(drawn: Drawn) -> None:
    assert "app: own 1" in drawn.pod("telco/upf").text
    assert "app: pool A" in drawn.pod("default/web-0").text
    (core,) = drawn.of("split")
    assert core.title == "socket 0, core 0, shared by #3, pool A"
    functions = {thing.lines[0].what: thing.lines[1].what for thing in drawn.of("function")}
    assert functions == {"VF0": "#2", "VF2": "#3"}
    assert drawn.pod("telco/upf").keys & drawn.pod("telco/probe").keys == {f"f{PF}"}


def test_it_marks_the_device_on_the_other_numa_node(drawn: Drawn) -> None:
    (crossing,) = drawn.of("crossing")
    assert crossing.lines[-1].what == "! rdma0 on NUMA 1, CPUs on NUMA 0"
    (far,) = drawn.of("far")
    assert far.text.startswith(PLAIN)


def test_no_output_has_a_value_of_the_environment(lab: Lab, text: str) -> None:
    for one in (text, map_of(lab, "html"), map_of(lab, "dot")):
        assert TREASURE not in one and "feed-handler" in one


def test_a_broken_network_status_is_reported_and_hides_no_link() -> None:
    with Lab() as lab:
        broken = {NETWORK_STATUS: "not JSON", CONFIGURATION_DATA: "{}"}
        lab.pod("web", annotations=broken).container("app", cpus="0")
        lab.agent("--pod-resources=/nonexistent/kubelet.sock")
        text = read(map_of(lab, "svg")).pod("default/web").title
        assert "! network_status: NETWORK_STATUS_MALFORMED" in text
        assert ("not known: link: NETWORK_NAMESPACE_NOT_READABLE" if CONFINED else "eth0") in text
        assert "network broken: network_status: NETWORK_STATUS_MALFORMED" in map_of(lab, "dot")


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot (graphviz)")
def test_graphviz_takes_the_graph_of_a_real_agent(lab: Lab) -> None:
    subprocess.run(["dot", "-Tplain"], input=map_of(lab, "dot").encode(), check=True, timeout=60)


@pytest.mark.skipif(CONFINED, reason="a confined agent sees no links, and the picture says so")
def test_the_picture_in_the_documents_is_what_the_command_draws(text: str) -> None:
    documented = DOCUMENTED.read_text(encoding="utf-8")
    assert CHANGING.sub("", documented) == CHANGING.sub("", text)
