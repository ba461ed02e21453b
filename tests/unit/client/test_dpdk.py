"""A whole EAL command line from the facts of a container, or an error; never a part of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from netutil.client import FailedPrecondition, NotFound, Unavailable, errors
from netutil.client.cpulist import format_cpulist, parse_cpulist
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.core import POD_UID
from tests.support.answers.dpdk import (
    GIBIBYTE,
    MEBIBYTE,
    facts,
    line_of,
    memif,
    option,
    refusal_of,
    reported,
    vhost_user,
    with_interfaces,
)


def test_the_whole_line_of_a_pinned_container_with_one_function() -> None:
    line = line_of(facts())
    assert line.words == (
        *("-l", "2-3", "-a", "0000:3b:02.1"),
        *("--socket-mem=1024", f"--file-prefix={POD_UID}-app"),
    )
    assert line.warnings == ()


def test_every_argument_says_where_it_comes_from() -> None:
    sources = [argument.source for argument in line_of(facts()).arguments]
    assert "exclusive CPUs 2-3" in sources[0] and "affinity" in sources[0]
    assert "net1" in sources[1] and "vfio-pci" in sources[1]
    assert "PCIDEVICE_INTEL_COM_SRIOV" in sources[1]
    assert "PodResources" in sources[2]
    assert all(sources)


def test_shared_cpus_are_all_allowed_cpus_and_a_warning() -> None:
    response = facts()
    response.cpu.exclusive_cpus = ""
    response.cpu.affinity = "1-3,8"
    line = line_of(response)
    assert line.words[:2] == ("-l", "1-3")
    assert line.warnings[0] == (
        "no exclusive CPUs: PodResources of the kubelet list none or, where the pod's status does"
        " not say what was granted (as before Kubernetes 1.22), none follow from its class and"
        " spec; other processes may run on these CPUs"
    )


def test_a_cpuset_partition_of_the_container_needs_no_warning() -> None:
    response = facts()
    response.cpu.exclusive_cpus = ""
    response.cpu.affinity = "2-3"
    line = line_of(response)
    assert (line.words[:2], line.warnings) == (("-l", "2-3"), ())
    assert 'cpuset partition "isolated", CPUs 2-3' in line.arguments[0].source


@pytest.mark.parametrize(
    "change",
    [
        {"level": api.CGROUP_LEVEL_POD},
        {"exclusive_cpus": "3"},
        {"state": "isolated invalid", "exclusive_cpus": ""},
    ],
)
def test_a_partition_that_excludes_no_others_keeps_the_warning(
    change: dict[str, Any],
) -> None:
    response = facts()
    response.cpu.exclusive_cpus = ""
    response.cpu.affinity = "2-3"
    response.cpu.cpuset_partition.MergeFrom(api.CpusetPartition(**change))
    if "exclusive_cpus" in change:
        response.cpu.cpuset_partition.exclusive_cpus = change["exclusive_cpus"]
    assert line_of(response).warnings[0].startswith("no exclusive CPUs: PodResources")


def test_unknown_exclusive_cpus_are_a_warning_with_the_reason() -> None:
    response = facts()
    response.cpu.ClearField("exclusive_cpus")
    response.cpu.resources_error.CopyFrom(answers.part_error("exclusive_cpus"))
    line = line_of(response)
    assert line.words[:2] == ("-l", "0-3")
    assert "PodResources socket cannot be reached" in line.warnings[0]


def test_exclusive_cpus_outside_the_affinity_make_no_line() -> None:
    response = facts()
    response.cpu.affinity = "0-1"
    error = refusal_of(response)
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "NO_USABLE_CPUS" and "2-3" in error.message and "0-1" in error.message


@pytest.mark.parametrize("driver", ["vfio-pci", "igb_uio", "uio_pci_generic", "mlx5_core"])
def test_a_device_that_dpdk_can_drive_is_allowed(driver: str) -> None:
    assert "-a" in line_of(with_interfaces(answers.sriov(driver=driver))).words


def test_a_device_of_the_kernel_is_left_out_with_a_warning() -> None:
    kernel, user = answers.sriov(1, driver="iavf"), answers.sriov(2)
    line = line_of(with_interfaces(kernel, user))
    assert [word for word in line.words if word.startswith("0000:")] == ["0000:3b:02.2"]
    assert "net1 is left out" in line.warnings[0] and "iavf" in line.warnings[0]


def test_the_same_device_is_allowed_once() -> None:
    line = line_of(with_interfaces(answers.sriov(1), answers.sriov(1)))
    assert line.words.count("0000:3b:02.1") == 1


def test_a_device_without_a_driver_makes_no_line() -> None:
    error = refusal_of(with_interfaces(answers.sriov(1), answers.sriov(2, driver="")))
    assert error.reason == "DEVICE_UNUSABLE" and "net2" in error.message


def test_a_device_that_the_node_does_not_have_makes_no_line() -> None:
    without_pci = answers.sriov(2)
    without_pci.ClearField("pci")
    error = refusal_of(with_interfaces(answers.sriov(1), without_pci))
    assert isinstance(error, FailedPrecondition) and "0000:3b:02.2" in error.message


def test_a_device_without_an_interface_is_allowed_too() -> None:
    device = answers.sriov(3)
    device.ClearField("network")
    device.name = ""
    line = line_of(with_interfaces(device))
    assert "0000:3b:02.3" in line.words
    assert "device of PCIDEVICE_INTEL_COM_SRIOV" in line.arguments[1].source


def test_a_subfunction_is_on_the_auxiliary_bus_with_no_pci() -> None:
    allocated = api.AllocatedDevice(variable="PCIDEVICE_NVIDIA_COM_SF", name="mlx5_core.sf.4")
    device = api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, allocated=allocated)
    words = line_of(with_interfaces(device)).words
    assert words[2:5] == ("-a", "auxiliary:mlx5_core.sf.4", "--no-pci")


@pytest.mark.parametrize("name", ["sda", "mlx5_core.sf.4,x=y", "mlx5_core.sf.", "-a"])
def test_an_allocated_device_of_no_known_name_makes_no_line(name: str) -> None:
    allocated = api.AllocatedDevice(variable="PCIDEVICE_X", name=name)
    device = api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, allocated=allocated)
    assert refusal_of(with_interfaces(device)).reason == "DEVICE_UNUSABLE"


@pytest.mark.parametrize(("mode", "more"), [("client", ""), ("server", ",server=1")])
def test_vhost_user_is_a_virtual_device_and_probes_no_pci_device(mode: str, more: str) -> None:
    words = line_of(with_interfaces(vhost_user(mode))).words
    device = f"net_virtio_user0,path=/run/vhost/net1{more},mac=0a:00:00:00:00:07"
    assert (f"--vdev={device}", "--no-pci") == words[2:4]


def test_the_pci_bus_stays_on_with_a_pci_device() -> None:
    words = line_of(with_interfaces(vhost_user(), answers.sriov(1))).words
    assert "--no-pci" not in words


def test_vhost_vdpa_is_a_virtual_device_virtio_the_kernels() -> None:
    def vdpa(driver: str) -> api.Interface:
        device = api.VDPADevice(driver=driver, path="/dev/vhost-vdpa-0")
        return reported("net1", api.DEVICE_TYPE_VDPA, vdpa=device)

    line = line_of(with_interfaces(vdpa("virtio"), vdpa("vhost")))
    assert "--vdev=net_virtio_user0,path=/dev/vhost-vdpa-0,mac=0a:00:00:00:00:07" in line.words
    assert "virtio" in line.warnings[0]


@pytest.mark.parametrize(("role", "dpdk"), [("master", "server"), ("slave", "client")])
def test_memif_has_a_socket_file_and_a_current_role(role: str, dpdk: str) -> None:
    (device,) = (
        word for word in line_of(with_interfaces(memif(role))).words if word.startswith("--vdev")
    )
    assert device == (
        f"--vdev=net_memif0,role={dpdk},socket=/run/m.sock,socket-abstract=no,mac=0a:00:00:00:00:07"
    )


@pytest.mark.parametrize(
    "interface",
    [
        memif(mode="ip"),
        memif(mode="inject-punt"),
        memif(role="boss"),
        memif(path=""),
        memif(path="m.sock"),
        memif(path="/run/m.sock,zero-copy=yes"),
        vhost_user(mode=""),
        vhost_user(path="/run/two words"),
        vhost_user(path="/run/line\nend"),
        vhost_user(path="/" + "x" * 200),
        reported("net1", api.DEVICE_TYPE_VHOST_USER),
        reported("net1", api.DEVICE_TYPE_VDPA, vdpa=api.VDPADevice(driver="vhost")),
        reported("net1", api.DEVICE_TYPE_VDPA, vdpa=api.VDPADevice(path="/dev/v")),
    ],
)
def test_an_argument_that_dpdk_would_misread_makes_no_line(interface: api.Interface) -> None:
    error = refusal_of(with_interfaces(answers.sriov(1), interface))
    assert error.reason == "DEVICE_UNUSABLE" and "net1" in error.message


def test_two_memif_interfaces_need_two_sockets() -> None:
    assert refusal_of(with_interfaces(memif(), memif())).reason == "DEVICE_UNUSABLE"
    words = line_of(with_interfaces(memif(), memif(path="/run/n.sock"))).words
    assert sum("net_memif1" in word for word in words) == 1


def test_a_container_with_kernel_interfaces_only_has_no_line() -> None:
    veth = answers.interfaces().interfaces[0]
    error = refusal_of(with_interfaces(veth, answers.sriov(driver="iavf")))
    assert isinstance(error, NotFound)
    assert error.reason == "NO_DPDK_DEVICE" and "iavf" in error.message


def test_a_device_on_another_node_than_the_cpus_is_a_warning() -> None:
    line = line_of(with_interfaces(answers.sriov(1), answers.sriov(2, numa_node=1)))
    (warning,) = line.warnings
    assert "net2" in warning and "NUMA node 1" in warning and "CPUs are on 0" in warning


def test_the_device_plugin_names_a_node_that_sysfs_does_not() -> None:
    device = answers.sriov(1)
    device.pci.ClearField("numa_node")
    response = with_interfaces(device)
    response.resources.devices.add(ID="0000:3b:02.1", resourceName="intel.com/n3", numa_nodes=[1])
    assert "NUMA node 1" in line_of(response).warnings[0]


def test_limits_without_the_memory_manager_are_on_the_cpus_nodes() -> None:
    response = facts()
    del response.resources.memory[:]
    for cpu in response.cpu.cpus:
        cpu.numa_node = 1
    assert option(line_of(response), "--socket-mem") == "0,1024"


def test_limits_are_shared_among_nodes_in_whole_pages() -> None:
    response = facts()
    del response.resources.memory[:]
    response.cpu.cpus[3].numa_node = 1
    asked = response.hugepages.containers[0]
    asked.limit_bytes = response.hugepages.usage[1].limit_bytes = 3 * GIBIBYTE
    assert option(line_of(response), "--socket-mem") == "2048,1024"


def test_pages_of_two_sizes_add_up() -> None:
    response = facts()
    del response.resources.memory[:]
    response.hugepages.containers.add(
        container_name="app", page_size_bytes=2 * MEBIBYTE, limit_bytes=512 * MEBIBYTE
    )
    response.hugepages.usage[0].limit_bytes = 256 * MEBIBYTE
    assert option(line_of(response), "--socket-mem") == str(1024 + 256)


def test_pages_of_another_container_do_not_count() -> None:
    response = facts()
    response.hugepages.containers[0].container_name = "other"
    del response.resources.memory[:]
    error = refusal_of(response)
    assert isinstance(error, NotFound) and error.reason == "NO_HUGEPAGES"


def test_a_cgroup_that_allows_no_page_makes_no_line() -> None:
    response = facts()
    del response.resources.memory[:]
    response.hugepages.usage[1].limit_bytes = 0
    assert "cgroup allows none" in refusal_of(response).message


def test_pages_that_the_node_does_not_have_free_are_a_warning() -> None:
    response = facts()
    response.hugepages.pools[0].numa_nodes[0].free_bytes = 0
    response.hugepages.usage[1].usage_bytes = 0
    (warning,) = line_of(response).warnings
    assert "NUMA node 0 has 0 MiB free" in warning and "1024 MiB" in warning


def test_newer_dpdk_calls_it_numa_mem() -> None:
    assert option(line_of(facts(), numa_mem=True), "--numa-mem") == "1024"


@pytest.mark.parametrize("part", ["pod", "cpu", "interfaces", "hugepages"])
def test_a_part_that_failed_makes_no_line_but_its_own_error(part: str) -> None:
    response = facts()
    response.ClearField(part)  # type: ignore[arg-type]
    response.errors.append(answers.part_error(part))
    error = refusal_of(response)
    assert isinstance(error, Unavailable) and error.reason == "POD_RESOURCES_UNAVAILABLE"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.interfaces.network_error.CopyFrom(answers.part_error()),
        lambda r: r.interfaces.allocated_error.CopyFrom(answers.part_error()),
        lambda r: r.hugepages.spec_error.CopyFrom(answers.part_error()),
    ],
)
def test_a_source_that_failed_makes_no_line(spoil: Callable[[api.AllResponse], None]) -> None:
    response = facts()
    spoil(response)
    assert isinstance(refusal_of(response), errors.Unavailable)


def test_an_error_of_the_resources_alone_stops_nothing() -> None:
    response = facts()
    response.ClearField("resources")
    response.errors.append(answers.part_error("resources"))
    assert option(line_of(response), "--socket-mem") == "1024"


def test_a_container_that_is_not_reported_yet_is_unavailable() -> None:
    response = facts()
    response.pod.container_name = ""
    assert refusal_of(response).reason == "CONTAINER_NOT_REPORTED"


@pytest.mark.parametrize("reason", ["CONTAINER_NOT_LISTED", "NOT_IN_A_CONTAINER"])
def test_a_process_in_no_container_gets_the_reason_for_no_line(
    reason: str,
) -> None:
    response = facts()
    response.pod.container_name = ""
    response.ClearField("resources")
    error = api.PartError(part="resources", code="FAILED_PRECONDITION", reason=reason)
    response.errors.append(error)
    refused = refusal_of(response)
    assert (type(refused), refused.reason) == (errors.FailedPrecondition, reason)


@given(st.frozensets(st.integers(0, 300)))
def test_a_list_of_cpus_reads_back(numbers: frozenset[int]) -> None:
    assert parse_cpulist(format_cpulist(numbers)) == numbers


TEXT = st.text(max_size=40)


@given(TEXT, TEXT, TEXT, TEXT, TEXT)
@example("/0", "", "", "", "")
@example("/\x80", "", "", "", "")
@example("/\u200b", "", "", "", "")
@example("/" + "\u00e9" * 106, "", "", "", "")
def test_no_report_can_add_an_argument(
    path: str, mac: str, role: str, address: str, name: str
) -> None:
    hostile = reported(name, api.DEVICE_TYPE_MEMIF, memif=api.MemifDevice(role=role, path=path))
    hostile.network.mac = mac
    allocated = api.AllocatedDevice(variable=name, name=address, pci_address=address)
    for interface in (
        hostile,
        vhost_user(path=path),
        api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, allocated=allocated),
    ):
        try:
            words = line_of(with_interfaces(answers.sriov(1), interface)).words
        except FailedPrecondition:
            continue
        assert len(words) <= len(line_of(with_interfaces(answers.sriov(1), vhost_user())).words)
        assert all(word.isprintable() and " " not in word for word in words)
        paths = [word.partition("path=")[2].partition(",")[0] for word in words]
        assert all(len(path.encode()) <= 107 for path in paths)


@pytest.mark.parametrize("piece", ["network", "device_info", "allocated", "pci"])
def test_a_piece_of_the_interfaces_that_failed_makes_no_line(piece: str) -> None:
    response = facts()
    getattr(response.interfaces, f"{piece}_error").CopyFrom(answers.part_error(piece))
    error = refusal_of(response)
    assert error.reason == "POD_RESOURCES_UNAVAILABLE"
