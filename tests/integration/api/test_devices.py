"""Interfaces, huge pages, topology and all at once, asked by pods of the lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from netutil.agent.parsers.userspace_cni import CONFIGURATION_DATA

from tests.support.lab import Lab, LabContainer
from tests.support.lab.agent import COMMAND, LabAgent
from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS, links_are_refused
from tests.support.nodes.json_calls import call

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]


def interfaces(container: LabContainer, **fields: object) -> Any:
    return call(container, "GetInterfaces", "InterfacesRequest", **fields)


def by_name(answer: Any) -> dict[str, Any]:
    return {one["name"]: one for one in answer["interfaces"]}


def reported(**fields: object) -> dict[str, str]:
    networks = [
        {"name": "cbr0", "interface": "eth0", "default": True, **fields},
        {"name": "shop/fast", "interface": "net1"},
    ]
    return {NETWORK_STATUS: json.dumps(networks)}


def started(lab: Lab) -> LabAgent:
    return lab.agent("--pod-resources=/nonexistent/kubelet.sock")


def test_interfaces_are_merged_from_what_is_reported_and_what_is(lab: Lab) -> None:
    container = lab.pod("web", annotations=reported(mac="02:ff:ff:ff:ff:ff")).container("app")
    started(lab)
    if links_are_refused(container):
        return
    answer = interfaces(container)
    assert answer["source"] == "NETWORK_SOURCE_NETWORK_STATUS"
    eth0, net1 = answer["interfaces"]
    (kernels,) = ip(container, "address", "show", "eth0")
    assert eth0["device_type"] == "DEVICE_TYPE_HOST"
    assert eth0["link"]["kind"] == "veth"
    assert eth0["link"]["mac"] == kernels["address"]
    assert eth0["link"]["index"] == kernels["ifindex"]
    assert [one["address"] for one in eth0["link"]["addresses"]] == [
        f"{one['local']}/{one['prefixlen']}" for one in kernels["addr_info"]
    ]
    assert eth0["drift"] == [
        {"field": "mac", "reported": "02:ff:ff:ff:ff:ff", "found": kernels["address"]}
    ]
    assert "link" not in net1
    assert [one["field"] for one in net1["drift"]] == ["link"]


def test_a_name_that_a_broken_annotation_may_have_is_its_error(
    lab: Lab,
) -> None:
    broken = reported() | {CONFIGURATION_DATA: '[{"containerId": "x", "ifName": "net2"'}
    container = lab.pod("web", annotations=broken).container("app")
    started(lab)
    for method, request in (
        ("GetInterfaces", "InterfacesRequest"),
        ("GetNetworkStatus", "NetworkStatusRequest"),
    ):
        assert "code" not in call(container, method, request, int="net1")
        refused = call(container, method, request, int="net2")
        assert refused["code"] == "FAILED_PRECONDITION"
        assert "it is not JSON" in refused["message"]


def ip(container: LabContainer, *arguments: str) -> Any:
    done = subprocess.run(
        ["nsenter", "-t", str(container.pid), "-n", "ip", "-j", *arguments],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_link_made_meanwhile_is_seen_at_the_next_call(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    started(lab)
    if links_are_refused(container):
        return
    assert "br7" not in by_name(interfaces(container))
    enter = ["nsenter", "-t", str(container.pid), "-n"]
    subprocess.run([*enter, "ip", "link", "add", "br7", "type", "bridge"], check=True)
    assert by_name(interfaces(container))["br7"]["link"]["kind"] == "bridge"
    (only,) = interfaces(container, int="br7")["interfaces"]
    assert only["name"] == "br7"
    assert interfaces(container, int="nope0")["code"] == "NOT_FOUND"
    assert interfaces(container, int="a/b")["code"] == "INVALID_ARGUMENT"


def test_devices_that_the_environment_names_are_entries(lab: Lab) -> None:
    env = {"PCIDEVICE_EXAMPLE_COM_NIC": "ffff:1f:1f.7", "PATH": os.environ["PATH"]}
    container = lab.pod("dpdk").container("app", env=env)
    started(lab)
    device = interfaces(container)["interfaces"][-1]
    assert device["allocated"]["variable"] == "PCIDEVICE_EXAMPLE_COM_NIC"
    assert device["allocated"]["pci_address"] == "ffff:1f:1f.7"
    assert [one["field"] for one in device["drift"]] == ["pci-address"]


def test_a_host_network_pod_is_reported_without_the_nodes_links(lab: Lab) -> None:
    container = lab.pod("exporter", host_network=True).container("app")
    started(lab)
    answer = interfaces(container)
    assert answer["host_network"] is True
    refused = interfaces(container, int="eth0")
    assert refused["code"] == "NOT_FOUND"
    assert "the node's own network, whose links are not listed" in refused["message"]
    assert all("link" not in one for one in answer.get("interfaces", ()))


def test_the_kernels_links_are_answered_without_a_pod_list(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    lab.agent(pod_source="file:/nonexistent/pods.json")
    if links_are_refused(container):
        return
    answer = interfaces(container)
    assert "link" in by_name(answer)["eth0"]
    assert answer["network_error"]["code"] == "UNAVAILABLE"


BROKEN = {NETWORK_STATUS: "not JSON"}


def test_a_broken_network_status_hides_neither_links_nor_devices(lab: Lab) -> None:
    env = {"PCIDEVICE_EXAMPLE_COM_NIC": "ffff:1f:1f.7", "PATH": os.environ["PATH"]}
    container = lab.pod("web", annotations=BROKEN).container("app", env=env)
    started(lab)
    if links_are_refused(container):
        return
    answer = interfaces(container)
    assert answer["network_error"]["reason"] == "NETWORK_STATUS_MALFORMED"
    assert answer["network_error"]["code"] == "FAILED_PRECONDITION"
    assert [one.get("name", "") for one in answer["interfaces"]] == ["eth0", ""]
    eth0, device = answer["interfaces"]
    assert eth0["link"]["kind"] == "veth"
    assert device["allocated"]["pci_address"] == "ffff:1f:1f.7"
    together = call(container, "GetAll", "AllRequest")
    assert together["interfaces"]["network_error"]["reason"] == "NETWORK_STATUS_MALFORMED"
    assert [one["part"] for one in together["errors"]] == ["network_status", "resources"]


def test_an_interface_behind_a_broken_status_is_not_denied(lab: Lab) -> None:
    container = lab.pod("web", annotations=BROKEN).container("app")
    started(lab)
    if links_are_refused(container):
        return
    assert by_name(interfaces(container, int="eth0"))["eth0"]["link"]
    refused = interfaces(container, int="net1")
    assert refused["code"] == "FAILED_PRECONDITION"
    assert refused["message"].startswith("not JSON") or "JSON" in refused["message"]


def test_the_command_shows_links_beside_a_broken_network_status(lab: Lab) -> None:
    container = lab.pod("web", annotations=BROKEN).container("app")
    started(lab)
    if links_are_refused(container):
        return
    done = container.run([sys.executable, "-m", "netutil.client", "interfaces"])
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    assert "eth0" in shown and "reported networks not known: " in shown


@pytest.mark.parametrize("annotated", [True, False])
def test_a_nameless_network_is_found_by_its_links_name(lab: Lab, annotated: bool) -> None:
    pod = lab.pod("web")
    container = pod.container("app")
    if annotated:
        networks = [{"name": "cbr0", "ips": [pod.ip], "default": True}]
        pod.annotations = {NETWORK_STATUS: json.dumps(networks)}
    started(lab)
    if links_are_refused(container):
        return
    (interface,) = interfaces(container, int="eth0")["interfaces"]
    answer = call(container, "GetNetworkStatus", "NetworkStatusRequest", int="eth0")
    assert answer["status"] == [interface["network"]]
    for method, request in (
        ("GetNetworkStatus", "NetworkStatusRequest"),
        ("GetInterfaces", "InterfacesRequest"),
    ):
        assert call(container, method, request, int="nope0")["code"] == "NOT_FOUND"


def test_a_route_behind_a_rule_is_returned_and_no_drift(lab: Lab) -> None:
    container = lab.pod("web", annotations=reported(gateway=["10.244.0.1"])).container("app")
    started(lab)
    if links_are_refused(container):
        return

    def eth0() -> Any:
        return by_name(interfaces(container))["eth0"]

    assert [one["field"] for one in eth0()["drift"]] == ["gateway"]
    enter = ["nsenter", "-t", str(container.pid), "-n", "ip"]
    for line in (
        "route add default via 10.244.0.1 dev eth0 table 100 onlink",
        "rule add table 100",
    ):
        subprocess.run([*enter, *line.split()], check=True)
    assert "drift" not in eth0()
    (route,) = eth0()["link"]["default_routes"]
    assert (route["gateway"], route["table"]) == ("10.244.0.1", 100)


def test_an_agent_barred_from_the_namespace_answers_the_rest(lab: Lab) -> None:
    env = {"PCIDEVICE_EXAMPLE_COM_NIC": "ffff:1f:1f.7", "PATH": os.environ["PATH"]}
    container = lab.pod("web", annotations=reported()).container("app", env=env)
    drop = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
    command = COMMAND if CONFINED else (*drop, *COMMAND)
    lab.agent("--pod-resources=/nonexistent/kubelet.sock", command=command)
    answer = interfaces(container)
    assert answer["link_error"]["reason"] == "NETWORK_NAMESPACE_NOT_READABLE"
    assert [one.get("name", "") for one in answer["interfaces"]] == ["eth0", "net1", ""]
    assert all("link" not in one for one in answer["interfaces"])
    assert "drift" not in answer["interfaces"][1]


def test_each_cpu_of_the_set_is_described(lab: Lab) -> None:
    container = lab.pod("web").container("app", cpus="0")
    started(lab)
    answer = call(container, "GetCPUInfo", "CPURequest", topology=True)
    (cpu,) = answer["cpus"]
    assert cpu.get("id", 0) == 0
    assert cpu["online"] is True
    assert "core" in cpu or os.path.exists("/sys/devices/system/cpu/cpu0/topology") is False
    assert "exclusive_cpus" not in answer
    assert answer["resources_error"]["code"] == "UNAVAILABLE"
    assert "cpus" not in call(container, "GetCPUInfo", "CPURequest")


def test_huge_pages_of_the_node_are_what_its_sysfs_says(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    started(lab)
    answer = call(container, "GetHugepages", "HugepagesRequest")
    top = "/sys/kernel/mm/hugepages"
    sizes = (
        sorted(int(name[10:-2]) * 1024 for name in os.listdir(top)) if os.path.isdir(top) else []
    )
    assert [int(pool["page_size_bytes"]) for pool in answer.get("pools", ())] == sizes
    assert "spec_error" not in answer


def test_all_at_once_with_what_fails_beside_the_rest(lab: Lab) -> None:
    container = lab.pod("web", annotations={NETWORK_STATUS: "[{"}).container("app", cpus="0")
    started(lab)
    answer = call(container, "GetAll", "AllRequest")
    assert answer["pod"]["name"] == "web"
    assert answer["cpu"]["cpuset"] == "0"
    assert answer["environment"] is not None
    failed = {one["part"]: one["reason"] for one in answer["errors"]}
    assert failed["network_status"] == "NETWORK_STATUS_MALFORMED"
    assert "interfaces" not in failed
    assert answer["interfaces"]["network_error"]["reason"] == "NETWORK_STATUS_MALFORMED"
    assert failed["resources"] == "POD_RESOURCES_UNAVAILABLE"
    assert not {"network_status", "resources"} & set(answer)
