"""Input that EAL refuses or misreads, and causes of half a line, by its sources and guides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.core import POD_UID
from tests.support.answers.dpdk import (
    GIBIBYTE,
    MEBIBYTE,
    devices_of,
    facts,
    line_of,
    memif,
    option,
    refusal_of,
    reported,
    vhost_user,
    with_interfaces,
)


def test_vhost_user_shares_few_files_with_its_other_end() -> None:
    assert line_of(with_interfaces(vhost_user())).words[4] == "--single-file-segments"
    assert "--single-file-segments" not in line_of(with_interfaces(memif())).words


def test_an_interface_of_which_nothing_is_there_makes_no_line() -> None:
    network = api.NetworkStatus(name="telco/n3", interface="net2")
    missing = api.Interface(name="net2", device_type=api.DEVICE_TYPE_UNKNOWN, network=network)
    error = refusal_of(with_interfaces(answers.sriov(1), missing))
    assert error.reason == "DEVICE_UNUSABLE"
    assert "net2" in error.message and "neither a link nor a device" in error.message
    missing.network.device_info.type = "com.example.dpu"
    assert "com.example.dpu" in refusal_of(with_interfaces(answers.sriov(1), missing)).message
    missing.network.default = True
    assert line_of(with_interfaces(answers.sriov(1), missing)).warnings == ()


def test_a_missing_link_on_the_nodes_network_says_nothing() -> None:
    own = api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, network=api.NetworkStatus(ips=["::1"]))
    response = with_interfaces(own, answers.sriov(1))
    response.interfaces.host_network = True
    assert line_of(response).warnings == ()


def test_links_that_are_not_known_are_a_warning() -> None:
    network = api.NetworkStatus(name="shop/fast", interface="net2")
    kernels = api.Interface(name="net2", device_type=api.DEVICE_TYPE_UNKNOWN, network=network)
    response = with_interfaces(answers.sriov(1), kernels)
    response.interfaces.link_error.CopyFrom(answers.part_error("link"))
    response.interfaces.link_error.reason = "NETWORK_NAMESPACE_NOT_READABLE"
    line = line_of(response)
    assert "0000:3b:02.1" in line.words
    assert "only a link of the pod names" in line.warnings[0]


@pytest.mark.parametrize("reason", ["NETWORK_NAMESPACE_CHANGING", "NETWORK_NAMESPACE_TOO_LARGE"])
def test_links_that_an_agent_could_read_but_did_not_make_no_line(reason: str) -> None:
    response = with_interfaces(answers.sriov(1))
    response.interfaces.link_error.CopyFrom(answers.part_error("link"))
    response.interfaces.link_error.reason = reason
    assert refusal_of(response).reason == reason


def of_a_device_plugin() -> api.AllResponse:
    """Net1 and net2 are networks of the pod; this container was given the device of net1."""
    response = with_interfaces(answers.sriov(1), answers.sriov(2))
    response.interfaces.interfaces[1].ClearField("allocated")
    response.resources.devices.add(ID="0000:3b:02.1", resourceName="intel.com/n3")
    return response


def test_a_device_of_another_container_is_omitted_and_warned() -> None:
    line = line_of(of_a_device_plugin())
    assert [word for word in line.words if word.startswith("0000:")] == ["0000:3b:02.1"]
    (warning,) = line.warnings
    assert "net2 is left out" in warning and "0000:3b:02.2" in warning


def test_a_container_without_any_of_the_pods_devices_has_no_line() -> None:
    response = of_a_device_plugin()
    response.interfaces.interfaces[0].ClearField("allocated")
    del response.resources.devices[:]
    error = refusal_of(response)
    assert error.reason == "NO_DPDK_DEVICE" and "net1" in error.message


@pytest.mark.parametrize("function", [True, False])
def test_a_vdpa_function_of_another_container_is_left_out_too(function: bool) -> None:
    device = api.VDPADevice(driver="vhost", path="/dev/vhost-vdpa-0", pci_address="0000:3b:02.2")
    interface = reported("net2", api.DEVICE_TYPE_VDPA, vdpa=device)
    interface.pci.CopyFrom(answers.sriov(2).pci)
    if not function:
        interface.pci.pf_address = ""
    response = of_a_device_plugin()
    response.interfaces.interfaces[1].CopyFrom(interface)
    line = line_of(response)
    assert any("vhost-vdpa-0" in word for word in line.words) is not function


def test_the_parent_of_a_subfunction_is_not_given() -> None:
    """Plugins report a subfunction with the address of the function that it is a part of."""
    parent = answers.sriov(1, driver="mlx5_core")
    parent.ClearField("allocated")
    allocated = api.AllocatedDevice(variable="PCIDEVICE_SF", name="mlx5_core.sf.4")
    part = api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, allocated=allocated)
    response = with_interfaces(parent, part)
    response.resources.devices.add(ID="mlx5_core.sf.4", resourceName="nvidia.com/sf")
    words = line_of(response).words
    assert words[2:5] == ("-a", "auxiliary:mlx5_core.sf.4", "--no-pci")


def with_podresources_alone(response: api.AllResponse) -> None:
    response.interfaces.interfaces[0].ClearField("allocated")
    response.resources.devices.add(ID="0000:3B:02.2", resourceName="intel.com/n3")


def without_podresources(response: api.AllResponse) -> None:
    response.ClearField("resources")
    response.errors.append(answers.part_error("resources"))


def with_a_claim(response: api.AllResponse) -> None:
    response.resources.dynamic_resources.add(claim_name="nic")


def with_a_device_of_another_name(response: api.AllResponse) -> None:
    response.interfaces.interfaces[0].ClearField("allocated")
    response.resources.devices[0].ID = "nic-7"


def with_a_device_that_only_its_link_names(response: api.AllResponse) -> None:
    response.interfaces.interfaces[1].network.ClearField("device_info")


@pytest.mark.parametrize(
    "change",
    [
        with_podresources_alone,
        without_podresources,
        with_a_claim,
        with_a_device_of_another_name,
        with_a_device_that_only_its_link_names,
    ],
)
def test_a_device_is_left_out_only_if_it_was_certainly_not_given(
    change: Callable[[api.AllResponse], None],
) -> None:
    response = of_a_device_plugin()
    change(response)
    line = line_of(response)
    assert {"0000:3b:02.1", "0000:3b:02.2"} <= set(line.words)


def test_a_link_on_another_device_than_reported_makes_no_line() -> None:
    interface = answers.sriov(1, driver="mlx5_core")
    interface.drift.add(field="pci-address", reported="0000:3b:02.1", found="0000:3b:02.7")
    error = refusal_of(with_interfaces(interface))
    assert error.reason == "DEVICE_UNUSABLE"
    assert "0000:3b:02.1 is reported, but its link is one of 0000:3b:02.7" in error.message


def test_a_vdpa_device_on_another_numa_node_is_a_warning() -> None:
    device = api.VDPADevice(driver="vhost", path="/dev/vhost-vdpa-0", pci_address="0000:3b:02.1")
    interface = reported("net1", api.DEVICE_TYPE_VDPA, vdpa=device)
    interface.pci.CopyFrom(answers.sriov(1, numa_node=1).pci)
    response = with_interfaces(interface)
    response.resources.devices.add(ID="0000:3b:02.1", resourceName="nvidia.com/vdpa")
    line = line_of(response)
    assert devices_of(line) == []
    (warning,) = line.warnings
    assert "net1" in warning and "NUMA node 1" in warning


@pytest.mark.parametrize(
    ("page_bytes", "limit_bytes"), [(64 * 1024, 512 * 1024), (2 * MEBIBYTE, MEBIBYTE)]
)
def test_less_than_eal_counts_in_makes_no_line(page_bytes: int, limit_bytes: int) -> None:
    response = facts()
    del response.resources.memory[:]
    asked = response.hugepages.containers[0]
    asked.page_size_bytes, asked.limit_bytes = page_bytes, limit_bytes
    del response.hugepages.usage[:]
    error = refusal_of(response)
    assert error.reason == "NO_HUGEPAGES" and "less than 1 MiB" in error.message


def test_pages_of_64_kib_add_up_to_whole_mebibytes() -> None:
    response = facts()
    del response.resources.memory[:]
    asked = response.hugepages.containers[0]
    asked.page_size_bytes, asked.limit_bytes = 64 * 1024, 96 * MEBIBYTE
    assert option(line_of(response), "--socket-mem") == "96"


def test_cpus_that_dpdk_has_no_number_for_are_mapped() -> None:
    response = facts()
    response.cpu.effective_cpus = response.cpu.affinity = "126-131"
    response.cpu.exclusive_cpus = "126-127,130"
    assert line_of(response).words[0] == "--lcores=0@126,1@127,2@130"
    response.cpu.exclusive_cpus = "126-127"
    assert line_of(response).words[:2] == ("-l", "126-127")


def test_more_cpus_than_dpdk_takes_are_a_warning() -> None:
    response = facts()
    response.cpu.effective_cpus = response.cpu.affinity = "0-200"
    response.cpu.exclusive_cpus = "0-128"
    (warning,) = line_of(response).warnings
    assert "129 CPUs" in warning and "128" in warning


def test_a_long_container_name_leaves_space_for_eal_sockets() -> None:
    response = facts()
    prefixes = set()
    for end in ("a", "b"):
        response.pod.container_name = "user-plane-function-with-a-long-name-" + end
        response.hugepages.containers[0].container_name = response.pod.container_name
        prefixes.add(option(line_of(response), "--file-prefix"))
    assert len(prefixes) == 2
    for prefix in prefixes:
        assert prefix.startswith(f"{POD_UID}-user-plane-f")
        socket = f"/var/run/dpdk/{prefix}/mp_socket_{2**22}_{2**64 - 1:x}"
        assert len(socket) <= 107


def without_own_pages() -> api.AllResponse:
    response = facts()
    del response.resources.memory[:]
    del response.hugepages.containers[:]
    return response


def test_no_pages_of_the_container_or_the_pod_make_no_line() -> None:
    error = refusal_of(without_own_pages())
    assert error.reason == "NO_HUGEPAGES"
    assert "neither it nor the pod as a whole asks for any" in error.message


def test_pages_of_the_pod_are_for_a_container_without_own_pages() -> None:
    response = without_own_pages()
    response.hugepages.usage[1].limit_bytes = 4 * GIBIBYTE
    response.hugepages.pod.add(page_size_bytes=GIBIBYTE, limit_bytes=4 * GIBIBYTE)
    line = line_of(response)
    assert option(line, "--socket-mem") == "4096"
    (memory,) = (one for one in line.arguments if "--socket-mem" in one.words[0])
    assert "huge pages of the pod, which its containers share" in memory.source


def test_pages_of_other_containers_are_left_to_them() -> None:
    response = without_own_pages()
    response.hugepages.usage[1].limit_bytes = 4 * GIBIBYTE
    response.hugepages.pod.add(page_size_bytes=GIBIBYTE, limit_bytes=4 * GIBIBYTE)
    for name, kind in (("side", "container"), ("setup", "init"), ("proxy", "sidecar")):
        response.hugepages.containers.add(
            container_name=name, page_size_bytes=GIBIBYTE, limit_bytes=GIBIBYTE, kind=kind
        )
    assert option(line_of(response), "--socket-mem") == "2048"
    response.hugepages.pod[0].granted_limit_bytes = 2 * GIBIBYTE
    error = refusal_of(response)
    assert "the other containers have all that the pod may use" in error.message


def test_a_container_with_pages_of_its_own_keeps_to_them() -> None:
    response = facts()
    del response.resources.memory[:]
    response.hugepages.pod.add(page_size_bytes=GIBIBYTE, limit_bytes=4 * GIBIBYTE)
    assert option(line_of(response), "--socket-mem") == "1024"


def test_a_kubelet_without_pod_level_huge_pages_is_a_warning() -> None:
    """Before Kubernetes 1.34 a container without a limit of its own has a limit of 0."""
    response = without_own_pages()
    response.hugepages.usage[1].limit_bytes = 0
    response.hugepages.usage[1].limit_level = api.CGROUP_LEVEL_CONTAINER
    response.hugepages.pod.add(page_size_bytes=GIBIBYTE, limit_bytes=GIBIBYTE)
    assert "its hugetlb cgroup allows none of the pod's" in refusal_of(response).message


def test_pages_of_the_pod_beyond_reach_leave_the_containers_own() -> None:
    response = facts()
    del response.resources.memory[:]
    assert response.hugepages.usage[0].limit_bytes == 0
    response.hugepages.pod.add(page_size_bytes=2 * MEBIBYTE, limit_bytes=GIBIBYTE)
    line = line_of(response)
    assert option(line, "--socket-mem") == "1024"
    response.hugepages.usage[0].limit_bytes = GIBIBYTE
    line = line_of(response)
    assert option(line, "--socket-mem") == "2048"
    (memory,) = (one for one in line.arguments if "--socket-mem" in one.words[0])
    assert "container app and of the pod, which its containers share" in memory.source


def test_granted_amounts_count_and_not_the_requests() -> None:
    response = facts()
    del response.resources.memory[:]
    del response.hugepages.usage[:]
    asked = response.hugepages.containers[0]
    asked.limit_bytes, asked.granted_limit_bytes = 4 * GIBIBYTE, 2 * GIBIBYTE
    assert option(line_of(response), "--socket-mem") == "2048"
