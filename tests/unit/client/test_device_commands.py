"""The commands about devices, and dpdk: what a person and a script see."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from netutil.client.cli import commands
from netutil.client.cli.exit_codes import Exit
from netutil.client.dpdk.view import read_own_view
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as device_answers
from tests.support.answers.core import HOSTILE, POD_UID
from tests.support.answers.dpdk import facts, file, view_of
from tests.support.fakes.agent import FakeAgent, Refusal
from tests.unit.client.command import Netutil, rows_of

COMMANDS = [("interfaces",), ("devices",), ("hugepages",), ("cpu", "--topology"), ("all",)]
LINE = f"-l 2-3 -a 0000:3b:02.1 --socket-mem=1024 --file-prefix={POD_UID}-app\n"


@pytest.fixture(autouse=True)
def _pinned(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container in which EAL finds all that it needs, and of which nothing is to be warned."""
    agent.everything.CopyFrom(facts())
    for name in ("dev/vfio/vfio", "dev/vfio/41", "dev/vfio/42", "run/$(reboot)"):
        file(tmp_path / name)
    for directory in ("dev/hugepages", "var/run", "sys/kernel/mm/hugepages"):
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.setattr(commands, "read_own_view", lambda: view_of(tmp_path))


def test_interfaces_are_shown_with_their_devices_and_drift(netutil: Netutil) -> None:
    rows = rows_of(netutil("interfaces").out)
    assert rows[0] == ["INTERFACES"]
    assert rows[2] == [
        *("eth0", "host", "cbr0", "0a:58:0a:f4:00:05", "1450", "UP"),
        *("10.244.0.5/24 fe80::1/64", "-", "-", "mtu: reported 1500, found 1450"),
    ]
    assert rows[3] == [
        *("net1", "sr-iov", "default/sriov", "c2:11:22:33:44:66", "9000", "-"),
        *("192.0.2.10/24 2001:db8::10", "0000:3b:02.1 vfio-pci", "0", "-"),
    ]
    assert rows[4] == ["(source: network-status, observed at 2026-01-31T12:00:00.250000Z)"]
    assert rows[5] == ["(AF_XDP devices (AFXDP_DEVICES): eth0)"]
    assert rows[6][0].startswith("(devices that the container was started with not known: The")
    assert rows[8] == ["LINKS"]
    assert rows[10][:4] == ["eth0", "2", "veth", "yes"]


def test_an_af_xdp_device_of_the_containers_start_is_marked(
    netutil: Netutil, agent: FakeAgent
) -> None:
    shells = device_answers.af_xdp_device(f"ens1f0{HOSTILE}", from_start=True)
    agent.interfaces.af_xdp.devices.append(shells)
    out = netutil("interfaces").out
    assert "(AF_XDP devices (AFXDP_DEVICES): eth0, ens1f0" in out and HOSTILE not in out
    assert "(container's start)" in out
    devices = json.loads(netutil("interfaces", "-o", "json").out)["af_xdp"]["devices"]
    assert [(one["variable"], one["name"], one["from_start"]) for one in devices] == [
        ("AFXDP_DEVICES", "eth0", False),
        ("AFXDP_DEVICES", f"ens1f0{HOSTILE}", True),
    ]


def test_an_older_agent_reports_no_af_xdp_devices(netutil: Netutil, agent: FakeAgent) -> None:
    del agent.interfaces.af_xdp.devices[:]
    assert json.loads(netutil("interfaces", "-o", "json").out)["af_xdp"] == {"devices": []}
    agent.interfaces.ClearField("af_xdp")
    assert json.loads(netutil("interfaces", "-o", "json").out)["af_xdp"] is None
    assert "AF_XDP" not in netutil("interfaces").out


def test_a_link_of_two_networks_is_listed_once(netutil: Netutil, agent: FakeAgent) -> None:
    again = agent.interfaces.interfaces.add()
    again.CopyFrom(agent.interfaces.interfaces[0])
    rows = rows_of(netutil("interfaces").out)
    shown, links = rows[: rows.index(["LINKS"])], rows[rows.index(["LINKS"]) :]
    assert sum(row[0] == "eth0" for row in shown) == 2
    assert sum(row[0] == "eth0" for row in links) == 1


def test_an_answer_of_shared_cpus_does_not_quote_the_kubelet(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.resources.ClearField("exclusive_cpus")
    agent.resources.ClearField("exclusive_cpu_ids")
    out = netutil("devices").out
    assert "no exclusive CPUs from the kubelet" in out and "kubelet:" not in out


def test_one_interface_can_be_asked_for(netutil: Netutil, agent: FakeAgent) -> None:
    netutil("interfaces", "net1", "--pid", "7")
    assert (agent.asked[0].int, agent.asked[0].pid) == ("net1", "7")


def test_unknown_parts_of_interfaces_are_notes(netutil: Netutil, agent: FakeAgent) -> None:
    agent.interfaces.network_error.CopyFrom(device_answers.part_error())
    out = netutil("interfaces").out
    assert "reported networks not known: The kubelet's PodResources socket" in out


def test_each_unknown_piece_is_reported_below_the_known(netutil: Netutil, agent: FakeAgent) -> None:
    for name in ("network", "allocated", "start", "link", "device_info", "pci", "claims"):
        getattr(agent.interfaces, f"{name}_error").CopyFrom(device_answers.part_error(name))
    ended = netutil("interfaces")
    assert (ended.code, ended.err) == (Exit.OK, "")
    assert ended.out.count("not known: The kubelet's PodResources socket") == 7
    assert "10.244.0.5/24" in ended.out and "0000:3b:02.1" in ended.out
    whole = json.loads(netutil("interfaces", "-o", "json").out)
    assert whole["pci_error"]["reason"] == whole["device_info_error"]["reason"]
    assert whole["interfaces"][0]["link"]["index"] == 2


def test_devices_that_the_node_lacks_are_a_note(netutil: Netutil, agent: FakeAgent) -> None:
    resources = agent.resources
    resources.absent_pci[:] = ["0000:ff:00.0"]
    resources.pci.add(address="0000:3d:01.0")
    out = netutil("devices").out
    assert "(0000:ff:00.0: the node has no PCI device of that address)" in out
    assert "(0000:3d:01.0: bound to no driver)" in out
    resources.pci_error.CopyFrom(device_answers.part_error("pci"))
    assert "PCI devices of the node not known: The kubelet's" in netutil("devices").out


def test_a_network_status_says_what_is_not_known_of_it(netutil: Netutil, agent: FakeAgent) -> None:
    agent.network_status.device_info_error.CopyFrom(device_answers.part_error("device_info"))
    assert "devices of the Userspace CNI plugin not known" in netutil("network").out


@pytest.mark.parametrize(
    ("source", "name", "marked"),
    [
        (api.DEVICE_SOURCE_DEVICE_INFO, "device-info", "0000:3b:02.1 vfio-pci"),
        (api.DEVICE_SOURCE_ELIMINATION, "elimination", "0000:3b:02.1 vfio-pci (inferred)"),
        (api.DEVICE_SOURCE_RESOURCE_NAME, "resource-name", "0000:3b:02.1 vfio-pci (guess)"),
        (api.DEVICE_SOURCE_ORDER, "order", "0000:3b:02.1 vfio-pci (guess)"),
    ],
)
def test_a_device_that_is_no_fact_is_marked(
    netutil: Netutil, agent: FakeAgent, source: Any, name: str, marked: str
) -> None:
    interface = agent.interfaces.interfaces[1]
    interface.device_source, interface.device_reason = source, "said so"
    out = netutil("interfaces").out
    assert rows_of(out)[3][7] == marked and "(net1: said so)" in out
    shown = json.loads(netutil("interfaces", "-o", "json").out)["interfaces"][1]
    assert (shown["device_source"], shown["device_reason"]) == (name, "said so")
    agent.everything.interfaces.CopyFrom(agent.interfaces)
    assert "said so" in netutil("dpdk", "--explain").out


def test_a_type_that_is_inferred_from_ids_is_marked(netutil: Netutil, agent: FakeAgent) -> None:
    interface = agent.interfaces.interfaces[1]
    interface.device_type_source = api.DEVICE_TYPE_SOURCE_DEVICE_ID
    assert "(net1: sr-iov is inferred from the device's ids or driver)" in netutil("interfaces").out
    agent.everything.interfaces.CopyFrom(agent.interfaces)
    assert "sr-iov (inferred from its ids or its driver)" in netutil("dpdk", "--explain").out


def test_a_default_route_of_another_table_is_shown_with_it(
    netutil: Netutil, agent: FakeAgent
) -> None:
    routes = agent.interfaces.interfaces[0].link.default_routes
    routes[0].table = 254
    routes.add(gateway="10.1.0.1", ip_version=4, table=100)
    rows = rows_of(netutil("interfaces").out)
    (links,) = (number for number, row in enumerate(rows) if "DEFAULT ROUTES" in row)
    assert rows[links + 1][7] == "10.244.0.1, 10.1.0.1 (table 100)"


def test_devices_show_exclusive_cpus_memory_and_claims(netutil: Netutil) -> None:
    rows = rows_of(netutil("devices").out)
    assert ["intel.com/sriov", "0000:3b:02.1", "0"] in rows
    assert ["example.com/tun", "tun", "-"] in rows
    assert ["(kubelet: exclusive CPUs 2-3)"] in rows
    assert ["hugepages-1Gi", "1 GiB", "0"] in rows
    prepared = rows[rows.index(["CLAIMS PREPARED BY THE KUBELET"]) :]
    cells = [*("default/nic", "driver.example", "pool", "one", "vendor.example/class=one")]
    assert cells in prepared


def test_a_claim_is_shown_with_devices_attributes_and_conditions(netutil: Netutil) -> None:
    out = netutil("devices").out
    rows = rows_of(out)
    assert [
        *("nic (default/web-0-nic-x7k2p)", "vf", device_answers.SRIOV_DRIVER, "node-1", "vf-5"),
        *("0000:3b:02.5 vfio-pci", "0", "net5 c2:11:22:33:44:05 192.0.2.15/24"),
        *("Unhealthy", "node"),
    ] in rows
    for name, kind, value in (
        ("numaNode", "int", "0"),
        ("rdma", "bool", "false"),
        ("firmware", "version", "1.2.3"),
        ("flags", "bools", "true, false"),
        ("ports", "strings", "a, b"),
        (device_answers.PCI_BUS_ID, "string", "0000:3b:02.5"),
    ):
        assert ["nic", "vf", "vf-5", name, kind, value] in rows
    assert [
        *("nic", "vf", "vf-5", "NetworkReady", "False", "NoCarrier"),
        *("2026-01-31T12:00:00.250000Z", "the port has no carrier"),
    ] in rows
    assert "(device vf-5 of request vf of claim nic: Unhealthy: the firmware does not" in out
    assert "(device vf-5 of request vf of claim nic: share 5e2f)" in out


def test_a_claims_devices_are_json_with_stable_names(netutil: Netutil) -> None:
    (claim,) = json.loads(netutil("devices", "-o", "json").out)["claims"]
    assert (claim["pod_claim"], claim["claim_name"]) == ("nic", "web-0-nic-x7k2p")
    assert (claim["source"], claim["generation"]) == ("node", 2)
    (device,) = claim["devices"]
    assert device["attributes"]["firmware"] == {"type": "version", "value": "1.2.3"}
    assert device["attributes"]["flags"] == {"type": "bools", "value": [True, False]}
    assert device["pci"]["driver"] == "vfio-pci"
    assert yaml.safe_load(netutil("devices", "-o", "yaml").out)["claims"] == [claim]


def test_claims_that_are_not_known_are_notes(netutil: Netutil, agent: FakeAgent) -> None:
    del agent.resources.claims[:], agent.resources.dynamic_resources[:]
    assert "CLAIMS" not in netutil("devices").out
    lost = api.ClaimDevice(device="vf-6")
    lost.attributes[device_answers.PCI_BUS_ID].string_value = "0000:ff:00.0"
    agent.resources.claims.extend(
        [
            device_answers.claim_request(error=device_answers.part_error("claims")),
            device_answers.claim_request(request="b", source=api.CLAIM_SOURCE_UNSPECIFIED),
            device_answers.claim_request(
                lost, request="c", pod_claim="", extended_resource="a.example/nic"
            ),
            device_answers.claim_request(request="d", claim_name="", driver=""),
        ]
    )
    out = netutil("devices").out
    assert "(devices of request vf of claim nic not known: The kubelet's PodResources" in out
    assert "(devices of request b of claim nic not known: no source has them)" in out
    assert "device vf-6 of request c of extended resource a.example/nic: no PCI device" in out
    assert "a.example/nic (default/web-0-nic-x7k2p)" in out and "nic (not made)" in out
    agent.resources.claims_error.CopyFrom(device_answers.part_error("claims"))
    assert "(claims of the container not known: The kubelet's" in netutil("devices").out
    del agent.resources.claims[:]
    assert json.loads(netutil("devices", "-o", "json").out)["claims"] is None
    assert "(claims of the container not known: The kubelet's" in netutil("devices").out


def test_a_plugins_device_that_is_not_healthy_is_a_note(netutil: Netutil, agent: FakeAgent) -> None:
    agent.resources.devices[0].health = "Unhealthy"
    agent.resources.devices[1].health = "Healthy"
    out = netutil("devices").out
    assert "(0000:3b:02.1: Unhealthy)" in out and "tun: Healthy" not in out


def test_an_interface_is_shown_with_its_claim(netutil: Netutil, agent: FakeAgent) -> None:
    device = device_answers.whole_claim_device()
    claim = device_answers.interface_claim(device)
    claimed = agent.interfaces.interfaces.add(name="net5", claim=claim)
    claimed.device_source = api.DEVICE_SOURCE_CLAIM
    claimed.device_type = api.DEVICE_TYPE_SR_IOV
    unplaced = agent.interfaces.interfaces.add(claim=claim)
    unplaced.claim.device.ClearField("network_data")
    unplaced.claim.device.ClearField("attributes")
    agent.interfaces.interfaces.add(name="net6", claim=api.InterfaceClaim(pod_claim="b"))
    out = netutil("interfaces").out
    rows = rows_of(out)
    assert [
        *("net5", "sr-iov", "-", "c2:11:22:33:44:05", "-", "-"),
        *("192.0.2.15/24", "0000:3b:02.5", "-", "-"),
    ] in rows
    assert [*("-", "unspecified", *("-",) * 5, "vf-5", "-", "-")] in rows
    assert f"(net5: device vf-5 of request vf of claim nic, driver {claim.driver})" in out
    assert "(net5: Unhealthy: the firmware does not answer)" in out
    assert "(net5: NetworkReady is False: NoCarrier: the port has no carrier)" in out
    assert "(vf-5: device vf-5 of request vf of claim nic" in out
    assert "(net6: claim b, driver -)" in out
    shown = json.loads(netutil("interfaces", "-o", "json").out)["interfaces"]
    assert (shown[2]["device_source"], shown[2]["claim"]["request"]) == ("claim", "vf")
    assert shown[0]["claim"] is None


def test_hostile_claims_cannot_break_a_table(netutil: Netutil, agent: FakeAgent) -> None:
    device = device_answers.whole_claim_device()
    for field in ("pool", "device", "share_id", "health", "health_message"):
        setattr(device, field, HOSTILE)
    device.attributes[HOSTILE].string_value = HOSTILE
    device.network_data.interface_name = HOSTILE
    for field in ("type", "status", "reason", "message"):
        setattr(device.conditions[0], field, HOSTILE)
    names: dict[str, Any] = dict.fromkeys(("pod_claim", "claim_name", "request", "driver"), HOSTILE)
    agent.resources.claims.append(
        device_answers.claim_request(device, **names, claim_namespace=HOSTILE)
    )
    agent.resources.devices[0].health = HOSTILE
    agent.interfaces.interfaces.add(claim=api.InterfaceClaim(device=device, **names))
    for command in ("devices", "interfaces"):
        out = netutil(command).out
        assert all(char.isprintable() or char == "\n" for char in out)
        assert "\\x1b[31mred" in out
    shown = json.loads(netutil("devices", "-o", "json").out)["claims"][1]
    assert shown["devices"][0]["attributes"][HOSTILE]["value"] == HOSTILE


def test_huge_pages_are_shown_in_the_largest_whole_unit(netutil: Netutil) -> None:
    rows = rows_of(netutil("hugepages").out)
    assert ["app", "1 GiB", "1 GiB", "1 GiB", "1 GiB"] in rows
    assert ["(all of the pod)", "2 MiB", "64 MiB", "64 MiB", "-"] in rows
    assert ["2 MiB", "0 B", "0 B", "container", "0"] in rows
    assert ["1 GiB", "1 GiB", "1 GiB", "pod", "1"] in rows
    assert ["1 GiB", "4 GiB", "3 GiB", "0 B", "0 B", "0: 1 GiB, 1: 2 GiB"] in rows


def test_the_topology_is_a_row_for_each_cpu(netutil: Netutil, agent: FakeAgent) -> None:
    rows = rows_of(netutil("cpu", "--topology").out)
    assert ["exclusive_cpus", "kubelet: 2-3"] in rows
    assert ["cpuset_partition", "kernel: isolated, the container cgroup's, CPUs 2-3"] in rows
    assert ["2", "1", "0", "0", "2-3", "yes", "yes", "yes", "yes"] in rows
    assert ["8", "-", "-", "-", "-", "no", "no", "no", "no"] in rows
    agent.cpu.ClearField("exclusive_cpus")
    agent.cpu.resources_error.CopyFrom(device_answers.part_error())
    assert "exclusive CPUs not known: The kubelet" in netutil("cpu", "--topology").out


def test_all_shows_every_part_and_what_was_not_answered(netutil: Netutil, agent: FakeAgent) -> None:
    agent.everything.ClearField("resources")
    agent.everything.errors.append(device_answers.part_error("resources"))
    ended = netutil("all", "--env")
    titles = [section.splitlines()[0] for section in ended.out.split("\n\n")]
    assert titles == [
        *("POD", "CPU", "TOPOLOGY", "ENVIRONMENT", "NETWORK STATUS", "INTERFACES", "LINKS"),
        *("HUGE PAGES ASKED FOR", "OF THIS CONTAINER", "OF THE NODE", "NOT ANSWERED"),
    ]
    assert rows_of(ended.out)[-1][:2] == ["resources", "POD_RESOURCES_UNAVAILABLE"]
    assert ended.code == Exit.OK


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_have_the_names_of_the_api(
    netutil: Netutil, agent: FakeAgent, output: str, load: Callable[[str], Any]
) -> None:
    agent.everything.CopyFrom(device_answers.everything())
    whole = load(netutil("all", "-o", output).out)
    assert whole["resources"]["devices"][0]["resource_name"] == "intel.com/sriov"
    assert whole["interfaces"] == load(netutil("interfaces", "-o", output).out)
    assert whole["hugepages"] == load(netutil("hugepages", "-o", output).out)
    assert whole["resources"] == load(netutil("devices", "-o", output).out)
    assert whole["interfaces"]["interfaces"][1]["device_type"] == "sr-iov"


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_no_control_character_of_an_answer_is_printed(
    netutil: Netutil, agent: FakeAgent, arguments: tuple[str, ...], output: str
) -> None:
    interface = device_answers.sriov()
    interface.name = interface.network.name = interface.link.kind = HOSTILE
    interface.drift.add(field=HOSTILE, reported=HOSTILE)
    agent.interfaces.interfaces.append(interface)
    agent.everything.interfaces.CopyFrom(agent.interfaces)
    agent.resources.devices.add(ID=HOSTILE, resourceName=HOSTILE)
    agent.hugepages.containers.add(container_name=HOSTILE)
    agent.everything.errors.add(part="x", reason=HOSTILE, message=HOSTILE)
    ended = netutil(*arguments, "-o", output)
    assert ended.code == 0
    assert ended.out.replace("\n", "").isprintable()


def test_dpdk_prints_a_line_that_a_shell_can_take(netutil: Netutil) -> None:
    ended = netutil("dpdk")
    assert (ended.code, ended.out, ended.err) == (Exit.OK, LINE, "")
    assert shlex.split(netutil("dpdk", "-o", "shell").out) == LINE.split()
    assert netutil("-o", "shell", "dpdk").out == netutil("dpdk", "-o", "shell").out


def test_dpdk_in_json_has_arguments_sources_and_warnings(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.everything.interfaces.interfaces.append(device_answers.sriov(2, driver="iavf"))
    ended = netutil("dpdk", "-o", "json")
    whole = json.loads(ended.out)
    assert whole["args"] == LINE.split()
    assert whole["arguments"][0]["words"] == ["-l", "2-3"]
    assert "iavf" in whole["warnings"][0]
    assert ended.err == ""


def test_dpdk_explains_each_argument_on_a_line_of_its_own(netutil: Netutil) -> None:
    lines = netutil("dpdk", "--explain").out.splitlines()
    assert [line.partition("#")[0].strip() for line in lines] == [
        *("-l 2-3", "-a 0000:3b:02.1", "--socket-mem=1024", f"--file-prefix={POD_UID}-app"),
    ]
    assert len({line.index("#") for line in lines}) == 1
    assert "interface net1" in lines[1]


def test_dpdk_warns_on_the_standard_error(netutil: Netutil, agent: FakeAgent) -> None:
    agent.everything.interfaces.interfaces.append(device_answers.sriov(2, numa_node=1))
    ended = netutil("dpdk")
    assert ended.code == Exit.OK and "0000:3b:02.2" in ended.out
    assert ended.err.startswith("netutil: warning: interface net2")


def test_dpdk_checks_the_line_in_its_own_container_only(netutil: Netutil, tmp_path: Path) -> None:
    (tmp_path / "dev/vfio/41").unlink()
    ended = netutil("dpdk")
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "net1: the container has no /dev/vfio/41" in ended.err
    ended = netutil("dpdk", "--pid", "7")
    assert (ended.code, ended.out, ended.err) == (Exit.OK, LINE, "")


def test_dpdk_without_proc_is_an_error(netutil: Netutil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "read_own_view", lambda: read_own_view("/nowhere"))
    ended = netutil("dpdk")
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "cannot be read: No such file or directory" in ended.err


def test_dpdk_prints_no_half_line(netutil: Netutil, agent: FakeAgent) -> None:
    agent.everything.interfaces.interfaces.append(device_answers.sriov(2, driver=""))
    ended = netutil("dpdk")
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "net2: PCI device 0000:3b:02.2 is bound to no driver" in ended.err
    del agent.everything.interfaces.interfaces[:], agent.everything.resources.devices[:]
    ended = netutil("dpdk", "-o", "json")
    assert (ended.code, ended.out) == (Exit.NOT_FOUND, "")
    assert json.loads(ended.err)["error"]["reason"] == "NO_DPDK_DEVICE"


def test_dpdk_prints_an_argument_with_quotes_for_shells_only(
    netutil: Netutil, agent: FakeAgent
) -> None:
    device = agent.everything.interfaces.interfaces[1]
    device.device_type = api.DEVICE_TYPE_VHOST_USER
    device.network.device_info.vhost_user.mode = "client"
    device.network.device_info.vhost_user.path = "/run/$(reboot)"
    ended = netutil("dpdk")
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert "-o shell" in ended.err
    words = shlex.split(netutil("dpdk", "-o", "shell").out)
    assert "--vdev=net_virtio_user0,path=/run/$(reboot),mac=c2:11:22:33:44:66" in words


def test_dpdk_waits_for_the_kubelet_to_report_a_new_container(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.everything.pod.container_name = ""
    ended = netutil("dpdk", "--timeout", "0.6")
    assert (
        ended.code == Exit.UNAVAILABLE and "does not name the process's container yet" in ended.err
    )
    assert len(agent.asked) > 1


def test_dpdk_waits_for_links_that_keep_changing(netutil: Netutil, agent: FakeAgent) -> None:
    error = device_answers.part_error("link")
    error.reason = "NETWORK_NAMESPACE_CHANGING"
    agent.everything.interfaces.link_error.CopyFrom(error)
    ended = netutil("dpdk", "--timeout", "0.6")
    assert (ended.code, ended.out) == (Exit.UNAVAILABLE, "")
    assert len(agent.asked) > 1


def test_dpdk_waits_for_device_metadata(netutil: Netutil, agent: FakeAgent) -> None:
    error = device_answers.part_error("claims")
    request = device_answers.claim_request(error=error)
    agent.everything.resources.claims.append(request)
    ended = netutil("dpdk", "--timeout", "0.6")
    assert (ended.code, ended.out) == (Exit.UNAVAILABLE, "")
    assert len(agent.asked) > 1
    agent.everything.resources.claims[0].error.code = "FAILED_PRECONDITION"
    agent.everything.interfaces.claims_error.CopyFrom(error)
    asked = len(agent.asked)
    assert netutil("dpdk", "--timeout", "0.6").code == Exit.FAILED
    assert len(agent.asked) > asked + 1
    agent.everything.interfaces.claims_error.code = "FAILED_PRECONDITION"
    asked = len(agent.asked)
    assert netutil("dpdk", "--timeout", "0.6").code == Exit.FAILED
    assert len(agent.asked) == asked + 1


def test_dpdk_passes_on_the_refusal_of_the_agent(netutil: Netutil, agent: FakeAgent) -> None:
    agent.refused_methods["AllRequest"] = Refusal(grpc.StatusCode.PERMISSION_DENIED, "No pod.")
    ended = netutil("dpdk")
    assert (ended.code, ended.out, ended.err) == (
        Exit.NOT_PERMITTED,
        "",
        "netutil: No pod. [PERMISSION_DENIED]\n",
    )
