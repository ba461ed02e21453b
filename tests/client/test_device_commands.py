"""The commands about devices, and dpdk: what a person and a script see."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import yaml
from netutil.client.exits import Exit
from netutil.v1alpha import netutil_pb2 as api

from tests.client import device_answers
from tests.client.answers import HOSTILE, POD_UID
from tests.client.command import Netutil, rows_of
from tests.client.double import Double, Refusal

COMMANDS = [("interfaces",), ("devices",), ("hugepages",), ("cpu", "--topology"), ("all",)]
LINE = f"-l 2-3 -a 0000:3b:02.1 --socket-mem=1024 --file-prefix={POD_UID}-app\n"


@pytest.fixture(autouse=True)
def _pinned(agent: Double) -> None:
    agent.everything.cpu.affinity = "0-3"


def test_interfaces_are_shown_as_they_are_with_their_devices_and_drift(netutil: Netutil) -> None:
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
    assert rows[6] == ["LINKS"]
    assert rows[8][:4] == ["eth0", "2", "veth", "yes"]


def test_one_interface_can_be_asked_for(netutil: Netutil, agent: Double) -> None:
    netutil("interfaces", "net1", "--pid", "7")
    assert (agent.asked[0].int, agent.asked[0].pid) == ("net1", "7")


def test_what_is_not_known_of_interfaces_is_said_below_them(
    netutil: Netutil, agent: Double
) -> None:
    agent.interfaces.network_error.CopyFrom(device_answers.part_error())
    out = netutil("interfaces").out
    assert "reported networks not known: The kubelet's PodResources socket" in out


def test_devices_show_exclusive_cpus_memory_and_claims(netutil: Netutil) -> None:
    rows = rows_of(netutil("devices").out)
    assert ["intel.com/sriov", "0000:3b:02.1", "0"] in rows
    assert ["example.com/tun", "tun", "-"] in rows
    assert ["(exclusive CPUs: 2-3)"] in rows
    assert ["hugepages-1Gi", "1 GiB", "0"] in rows
    assert [*("default/nic", "driver.example", "pool", "one", "vendor.example/class=one")] in rows


def test_huge_pages_are_shown_in_the_largest_whole_unit(netutil: Netutil) -> None:
    rows = rows_of(netutil("hugepages").out)
    assert ["app", "1 GiB", "1 GiB", "1 GiB", "1 GiB"] in rows
    assert ["(all of the pod)", "2 MiB", "64 MiB", "64 MiB", "-"] in rows
    assert ["2 MiB", "0 B", "0 B", "0"] in rows
    assert ["1 GiB", "1 GiB", "1 GiB", "1"] in rows
    assert ["1 GiB", "4 GiB", "3 GiB", "0 B", "0 B", "0: 1 GiB, 1: 2 GiB"] in rows


def test_the_topology_is_a_row_for_each_cpu(netutil: Netutil, agent: Double) -> None:
    rows = rows_of(netutil("cpu", "--topology").out)
    assert ["exclusive_cpus", "2-3"] in rows
    assert ["2", "1", "0", "0", "2-3", "yes", "yes", "yes", "yes"] in rows
    assert ["8", "-", "-", "-", "-", "no", "no", "no", "no"] in rows
    agent.cpu.ClearField("exclusive_cpus")
    agent.cpu.resources_error.CopyFrom(device_answers.part_error())
    assert "exclusive CPUs not known: The kubelet" in netutil("cpu", "--topology").out


def test_all_shows_every_part_and_what_was_not_answered(netutil: Netutil, agent: Double) -> None:
    agent.everything.ClearField("resources")
    agent.everything.errors.append(device_answers.part_error("resources"))
    ended = netutil("all")
    titles = [section.splitlines()[0] for section in ended.out.split("\n\n")]
    assert titles == [
        *("POD", "CPU", "TOPOLOGY", "ENVIRONMENT", "NETWORK STATUS", "INTERFACES", "LINKS"),
        *("HUGE PAGES ASKED FOR", "OF THIS CONTAINER", "OF THE NODE", "NOT ANSWERED"),
    ]
    assert rows_of(ended.out)[-1][:2] == ["resources", "POD_RESOURCES_UNAVAILABLE"]
    assert ended.code == Exit.OK


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_bear_the_names_of_the_api(
    netutil: Netutil, output: str, load: Callable[[str], Any]
) -> None:
    whole = load(netutil("all", "-o", output).out)
    assert whole["resources"]["devices"][0]["resourceName"] == "intel.com/sriov"
    assert whole["interfaces"] == load(netutil("interfaces", "-o", output).out)
    assert whole["hugepages"] == load(netutil("hugepages", "-o", output).out)
    assert whole["resources"] == load(netutil("devices", "-o", output).out)
    assert whole["interfaces"]["interfaces"][1]["device_type"] == "sr-iov"


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_no_control_character_of_an_answer_is_printed(
    netutil: Netutil, agent: Double, arguments: tuple[str, ...], output: str
) -> None:
    interface = device_answers.sriov()
    interface.name = interface.network.name = interface.link.kind = HOSTILE
    interface.drift.add(field=HOSTILE, reported=HOSTILE)
    agent.interfaces.interfaces.append(interface)
    agent.everything.interfaces.CopyFrom(agent.interfaces)
    agent.resources.devices.add(ID=HOSTILE, resourceName=HOSTILE)
    agent.hugepages.containers.add(container_name=HOSTILE)
    agent.everything.errors.add(part="x", reason=HOSTILE, sentence=HOSTILE)
    ended = netutil(*arguments, "-o", output)
    assert ended.code == 0
    assert ended.out.replace("\n", "").isprintable()


def test_dpdk_prints_a_line_that_a_shell_can_take(netutil: Netutil) -> None:
    ended = netutil("dpdk")
    assert (ended.code, ended.out, ended.err) == (Exit.OK, LINE, "")
    assert shlex.split(netutil("dpdk", "-o", "shell").out) == LINE.split()
    assert netutil("-o", "shell", "dpdk").out == netutil("dpdk", "-o", "shell").out


def test_dpdk_in_json_has_arguments_sources_and_warnings(netutil: Netutil, agent: Double) -> None:
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


def test_dpdk_warns_on_the_standard_error(netutil: Netutil, agent: Double) -> None:
    agent.everything.interfaces.interfaces.append(device_answers.sriov(2, numa_node=1))
    ended = netutil("dpdk")
    assert ended.code == Exit.OK and "0000:3b:02.2" in ended.out
    assert ended.err.startswith("netutil: warning: interface net2")


def test_dpdk_prints_no_half_line(netutil: Netutil, agent: Double) -> None:
    agent.everything.interfaces.interfaces.append(device_answers.sriov(2, driver=""))
    ended = netutil("dpdk")
    assert (ended.code, ended.out) == (Exit.FAILED, "")
    assert "net2: PCI device 0000:3b:02.2 is bound to no driver" in ended.err
    del agent.everything.interfaces.interfaces[:]
    ended = netutil("dpdk", "-o", "json")
    assert (ended.code, ended.out) == (Exit.NOT_FOUND, "")
    assert json.loads(ended.err)["error"]["reason"] == "NO_DPDK_DEVICE"


def test_dpdk_gives_an_argument_that_needs_quotes_to_those_who_can_read_them(
    netutil: Netutil, agent: Double
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
    netutil: Netutil, agent: Double
) -> None:
    agent.everything.pod.container_name = ""
    ended = netutil("dpdk", "--timeout", "0.6")
    assert ended.code == Exit.UNAVAILABLE and "not yet reported" in ended.err
    assert len(agent.asked) > 1


def test_dpdk_waits_for_links_that_keep_changing(netutil: Netutil, agent: Double) -> None:
    error = device_answers.part_error("link")
    error.reason = "NETWORK_NAMESPACE_CHANGING"
    agent.everything.interfaces.link_error.CopyFrom(error)
    ended = netutil("dpdk", "--timeout", "0.6")
    assert (ended.code, ended.out) == (Exit.UNAVAILABLE, "")
    assert len(agent.asked) > 1


def test_dpdk_passes_on_the_refusal_of_the_agent(netutil: Netutil, agent: Double) -> None:
    agent.refused_methods["AllRequest"] = Refusal(grpc.StatusCode.PERMISSION_DENIED, "No pod.")
    ended = netutil("dpdk")
    assert (ended.code, ended.out, ended.err) == (Exit.NOT_PERMITTED, "", "netutil: No pod.\n")
