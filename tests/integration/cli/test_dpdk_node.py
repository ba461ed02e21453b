"""A DPDK pod asks for everything it needs to start; and the documents show what one gets."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.dpdk_node import GIBIBYTE, UID, VARIABLE, DpdkNode, dpdk_node
from tests.support.nodes.measures import metric
from tests.support.nodes.sriov_node import VFIO_VF
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("dpdk")]

DOCUMENTS = ROOT / "docs"
EXAMPLE = re.compile(r"^```console\n\$ netutil(?P<arguments>.*)\n(?P<shown>(?s:.*?))^```$", re.M)
CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "CONTAINER-ID"),
    (re.compile(r"\bfe80::[0-9a-f:]+"), "LINK-LOCAL"),
    (re.compile(r"\bcbr0 +[0-9a-f:]{17}\b"), "cbr0 MAC"),
    (re.compile(r"\b\d+ B, \d+ packets"), "COUNT"),
    (re.compile(r" +"), " "),
)
"""What differs between two runs."""
BY_VERSION = {
    "shares 1024\n": "shares -\n",
    "weight -\n": "weight 100\n",
    "cgroup_version 1\n": "cgroup_version 2\n",
    "kernel: no exclusive cpuset\n": "kernel: no cpuset partition\n",
}
"""What the documents show is of cgroup v1; here without the width of columns."""
REFRESH_SECONDS = 10  # the default of --pod-refresh


@pytest.fixture(scope="module")
def node() -> Iterator[DpdkNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with dpdk_node() as node:
        yield node


def printed(node: DpdkNode, *argv: str) -> tuple[int, str, str]:
    done = node.app.run([sys.executable, "-m", "netutil.client", *argv])
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_line_of_a_pinned_container_has_function_and_memif(node: DpdkNode) -> None:
    code, out, err = printed(node, "dpdk")
    assert code == 0
    # Without live links it works, and warns (docs/install.md).
    assert ("a device that only a link of the pod names is left out" in err) is CONFINED
    assert CONFINED or err == ""
    assert out.split() == [
        *("-l", "1", "-a", VFIO_VF),
        "--vdev=net_memif0,role=client,socket=/run/memif/n6.sock,socket-abstract=no",
        *("--socket-mem=1024", f"--file-prefix={UID}-app"),
    ]


def test_annotation_environment_and_node_name_one_function(node: DpdkNode) -> None:
    _, function, _ = netutil(node.app, "interfaces")["interfaces"]
    assert function["device_type"] == "sr-iov"
    assert function["pci"]["address"] == function["allocated"]["pci_address"] == VFIO_VF
    assert (function["pci"]["driver"], function["pci"]["numa_node"]) == ("vfio-pci", 0)
    assert function["allocated"]["variable"] == VARIABLE
    assert function["link"] is None and function["drift"] == []


def test_devices_cpus_and_memory_are_what_the_kubelet_gave(node: DpdkNode) -> None:
    given = netutil(node.app, "devices")
    (device,) = given["devices"]
    assert (device["id"], device["resource_name"]) == (VFIO_VF, "intel.com/n3")
    assert (device["numa_nodes"], device["health"], given["claims"]) == ([0], "", [])
    assert given["exclusive_cpus"] == "1"
    assert given["memory"] == [{"type": "hugepages-1Gi", "size_bytes": GIBIBYTE, "numa_nodes": [0]}]
    cpus = netutil(node.app, "cpu", "--topology")
    sets = ("cpuset_ids", "effective_cpu_ids", "affinity_ids", "exclusive_cpu_ids")
    assert [cpus[one] for one in sets] == [[1], [1], [1], [1]]
    (cpu,) = cpus["cpus"]
    assert (cpu["id"], cpu["exclusive"], cpu["siblings"]) == (1, True, [0, 1])
    (asked,) = netutil(node.app, "hugepages")["containers"]
    assert (asked["page_size_bytes"], asked["limit_bytes"]) == (GIBIBYTE, GIBIBYTE)


def test_many_simultaneous_callers_cost_the_kubelet_one_list(node: DpdkNode) -> None:
    netutil(node.app, "devices")
    before, began = node.kubelet.lists, time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: netutil(node.app, "devices"), range(8)))
    assert {one["exclusive_cpus"] for one in answers} == {"1"}
    # One list each refresh, however long that takes on a slow machine.
    most = 1 + (time.monotonic() - began) // REFRESH_SECONDS
    assert node.kubelet.lists - before <= most
    assert (
        metric(node.agent, r'netutil_podresources_requests_total{method="List"}')
        == node.kubelet.lists
    )


def test_an_unavailable_kubelet_is_an_error_of_its_parts_only() -> None:
    with dpdk_node() as node:
        node.kubelet.failure = (grpc.StatusCode.UNAVAILABLE, "the kubelet is restarting")
        code, out, err = printed(node, "devices", "--timeout", "1", "-o", "json")
        assert (code, out) == (5, "")
        assert json.loads(err)["error"]["reason"] == "POD_RESOURCES_UNAVAILABLE"
        everything = netutil(node.app, "all")
        (error,) = everything["errors"]
        assert error["part"] == "resources" and everything["resources"] is None
        assert everything["cpu"]["exclusive_cpus"] is None
        code, out, err = printed(node, "dpdk")
        assert code == 0 and "--socket-mem=1024" in out
        assert "whether the CPUs are exclusive is not known" in err
        assert metric(node.agent, "netutil_podresources_failures_total") >= 1
        node.kubelet.failure = None
        assert netutil(node.app, "devices", "--timeout", "40")["exclusive_cpus"] == "1"


def examples() -> list[Any]:
    return [
        pytest.param(found["arguments"].split(), found["shown"], id=f"{path.name}:{number}")
        for path in sorted(DOCUMENTS.rglob("*.md"))
        for number, found in enumerate(EXAMPLE.finditer(path.read_text(encoding="utf-8")))
    ]


def unchanging(text: str) -> str:
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return text


@pytest.mark.parametrize(("arguments", "shown"), examples())
def test_the_output_is_the_documents_example(
    node: DpdkNode, arguments: list[str], shown: str
) -> None:
    code, out, _ = printed(node, *arguments)
    assert code == 0
    if CONFINED and "if2" in shown:
        assert "NETWORK_NAMESPACE_NOT_READABLE" in out
        return
    shown = unchanging(shown)
    if not any((one / "cpu.shares").exists() for one in node.app.cgroups):
        for first, second in BY_VERSION.items():
            shown = shown.replace(first, second)
    assert unchanging(out) == shown
