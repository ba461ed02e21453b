"""Devices of resource claims on the line, or the reason why they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from netutil.client import NetUtilError, Unavailable
from netutil.client.dpdk.eal import CommandLine
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.devices import (
    PCI_BUS_ID,
    claim_device,
    claim_request,
    interface_claim,
    part_error,
)
from tests.support.answers.dpdk import (
    devices_of,
    facts,
    file,
    line_of,
    refusal_of,
    reported,
    view_of,
    with_interfaces,
)

VF = "0000:3b:02.5"
NO_SOURCE = api.CLAIM_SOURCE_UNSPECIFIED


def with_claims(*requests: api.ClaimRequest) -> api.AllResponse:
    """Claims are all that the container has."""
    response = with_interfaces()
    response.resources.claims.extend(requests)
    return response


def claimed_interface(device: api.ClaimDevice, **fields: Any) -> api.Interface:
    """An interface of a claim's device, as the agent pairs both."""
    values: dict[str, Any] = {
        "name": "net5",
        "device_type": api.DEVICE_TYPE_SR_IOV,
        "device_source": api.DEVICE_SOURCE_CLAIM,
        **fields,
    }
    pci = device.pci if device.HasField("pci") else None
    return api.Interface(claim=interface_claim(device), pci=pci, **values)


def nameless() -> api.ClaimDevice:
    """A device of which its driver publishes no address; the name is no promise of one."""
    return api.ClaimDevice(pool="node-1", device="0000-3b-02-5")


def without_resources(response: api.AllResponse) -> api.AllResponse:
    response.ClearField("resources")
    response.errors.append(part_error("resources"))
    return response


def source_of(line: CommandLine, address: str) -> str:
    return next(one.source for one in line.arguments if one.words[-1] == address)


def test_a_function_of_a_claim_is_on_the_line() -> None:
    line = line_of(with_claims(claim_request(claim_device())))
    assert (devices_of(line), line.warnings) == ([VF], ())
    assert source_of(line, VF) == (
        "device vf-5 of request vf of claim nic, bound to vfio-pci"
        " (attribute resource.kubernetes.io/pciBusID)"
    )


def test_a_claimed_function_with_an_interface_is_given_once() -> None:
    response = with_claims(claim_request(claim_device()))
    response.interfaces.interfaces.append(claimed_interface(claim_device()))
    line = line_of(response)
    assert (devices_of(line), line.warnings) == ([VF], ())
    assert "interface net5, sr-iov" in source_of(line, VF)
    assert "request vf of claim nic" in source_of(line, VF)


def test_a_source_of_a_newer_agent_is_a_source() -> None:
    line = line_of(with_claims(claim_request(claim_device(), source=99)))
    assert (devices_of(line), line.warnings) == ([VF], ())


@pytest.mark.parametrize("name", ["dev/vfio/45", "dev/vfio/vfio"])
def test_a_file_that_a_claimed_function_needs_is_checked(name: str, tmp_path: Path) -> None:
    for needed in ("dev/vfio/vfio", "dev/vfio/45"):
        file(tmp_path / needed)
    for directory in ("dev/hugepages", "var/run", "sys/kernel/mm/hugepages"):
        (tmp_path / directory).mkdir(parents=True)
    response = with_claims(claim_request(claim_device()))
    assert line_of(response, view=view_of(tmp_path)).warnings == ()
    (tmp_path / name).unlink()
    error = refusal_of(response, view_of(tmp_path))
    assert error.reason == "DEVICE_UNUSABLE" and f"the container has no /{name}" in error.message
    assert "vf-5 of request vf of claim nic" in error.message


def test_a_claimed_function_needs_no_podresources() -> None:
    unnamed = claimed_interface(claim_device(), name="")
    line = line_of(without_resources(with_interfaces(unnamed)))
    assert devices_of(line) == [VF]
    assert source_of(line, VF).startswith("device of request vf of claim nic, sr-iov")


def test_a_claimed_function_is_given_beside_those_of_plugins() -> None:
    response = facts()
    response.resources.claims.append(claim_request(claim_device()))
    assert devices_of(line_of(response)) == ["0000:3b:02.1", VF]


def test_two_requests_for_one_function_give_it_once() -> None:
    again = claim_request(claim_device(), request="again")
    assert devices_of(line_of(with_claims(claim_request(claim_device()), again))) == [VF]


@pytest.mark.parametrize("driver", ["iavf", "ice"])
def test_a_claimed_function_of_the_kernel_is_left_out(driver: str) -> None:
    other = claim_device(6)
    line = line_of(with_claims(claim_request(claim_device(driver=driver), other)))
    assert devices_of(line) == ["0000:3b:02.6"]
    assert f"is left out: PCI device {VF} is bound to {driver}" in line.warnings[0]


def test_a_container_with_kernel_functions_only_has_no_line() -> None:
    error = refusal_of(with_claims(claim_request(claim_device(driver="iavf"))))
    assert error.reason == "NO_DPDK_DEVICE" and "bound to iavf" in error.message


def test_a_shared_driver_without_a_link_is_a_warning() -> None:
    line = line_of(with_claims(claim_request(claim_device(driver="mlx5_core"))))
    assert devices_of(line) == [VF]
    assert "no link of PCI device 0000:3b:02.5" in line.warnings[0]


def test_a_shared_driver_with_its_link_needs_no_warning() -> None:
    device = claim_device(driver="mlx5_core")
    response = with_claims(claim_request(device))
    response.interfaces.interfaces.append(claimed_interface(device, link=answers.link()))
    line = line_of(response)
    assert (devices_of(line), line.warnings) == ([VF], ())


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        ("", "is bound to no driver"),
        ("mlx5_vfio_pci", "of VFIO, EAL takes vfio-pci only"),
    ],
)
def test_a_claimed_function_that_cannot_work_makes_no_line(driver: str, why: str) -> None:
    error = refusal_of(with_claims(claim_request(claim_device(driver=driver))))
    assert error.reason == "DEVICE_UNUSABLE" and why in error.message
    assert "request vf of claim nic" in error.message
    assert (error.advice or "").startswith("netutil devices shows")


def test_a_claimed_function_that_the_node_lacks_makes_no_line() -> None:
    device = claim_device()
    device.ClearField("pci")
    response = with_claims(claim_request(device))
    assert f"the node has no PCI device {VF}" in refusal_of(response).message
    alone = without_resources(with_interfaces(claimed_interface(device)))
    assert f"the node has no PCI device {VF}" in refusal_of(alone).message
    response.resources.pci_error.CopyFrom(part_error("pci"))
    assert isinstance(refusal_of(response), Unavailable)


def test_an_agent_that_contradicts_itself_makes_no_line() -> None:
    device = claim_device()
    device.pci.address = "0000:3b:02.7"
    error = refusal_of(with_claims(claim_request(device)))
    assert error.reason == "DEVICE_UNUSABLE" and "agent reports 0000:3b:02.7" in error.message


def test_another_device_behind_the_interface_makes_no_line() -> None:
    contradicting = claimed_interface(claim_device())
    contradicting.pci.address = "0000:3b:02.7"
    error = refusal_of(with_interfaces(contradicting))
    assert error.reason == "DEVICE_UNUSABLE"
    assert f"claim has PCI device '{VF}', but its device is 0000:3b:02.7" in error.message


@pytest.mark.parametrize("field", ["pci-address", "claim-pci-address"])
def test_a_link_of_another_function_makes_no_line(field: str) -> None:
    interface = claimed_interface(claim_device(driver="mlx5_core"), link=answers.link())
    interface.drift.add(field=field, reported=VF, found="0000:3b:02.7")
    error = refusal_of(with_interfaces(interface))
    assert error.reason == "DEVICE_UNUSABLE"
    assert f"PCI device {VF} is reported, but its link is one of 0000:3b:02.7" in error.message


@pytest.mark.parametrize("value", ["0000-3b-02-5", "3b:02.5", "0000:3b:02.5,x=y", "-a", "é"])
def test_an_attribute_that_is_no_address_makes_no_line(value: str) -> None:
    device = claim_device()
    device.attributes[PCI_BUS_ID].string_value = value
    error = refusal_of(with_claims(claim_request(device)))
    assert error.reason == "DEVICE_UNUSABLE" and "no PCI address" in error.message


def test_a_name_like_an_address_gives_nothing() -> None:
    response = with_claims(claim_request(nameless()))
    response.environment.envs["SRIOVNETWORK_VF_DEVICE_0000_3b_02_5"] = VF
    error = refusal_of(response)
    assert error.reason == "DEVICES_NOT_KNOWN"
    assert "no attribute resource.kubernetes.io/pciBusID says" in error.message
    assert "SRIOVNETWORK_VF_DEVICE_0000_3b_02_5" in error.message


def test_a_nameless_device_beside_another_is_a_warning() -> None:
    response = facts()
    response.resources.claims.append(claim_request(nameless()))
    line = line_of(response)
    assert devices_of(line) == ["0000:3b:02.1"]
    (warning,) = line.warnings
    assert warning == (
        "of request vf of claim nic no attribute resource.kubernetes.io/pciBusID says which PCI"
        " device it is, so it is left out: 0000-3b-02-5"
    )


def test_many_nameless_devices_are_one_warning() -> None:
    response = facts()
    devices = [api.ClaimDevice(pool="cpus", device=f"cpu-{number}") for number in range(128)]
    response.resources.claims.append(claim_request(*devices))
    (warning,) = line_of(response).warnings
    assert warning.endswith("cpu-0, cpu-1, cpu-2, cpu-3 and 124 more")


def test_a_nameless_device_that_is_a_link_is_the_kernels() -> None:
    response = facts()
    response.resources.claims.append(claim_request(nameless()))
    veth = claimed_interface(nameless(), device_type=api.DEVICE_TYPE_HOST, link=answers.link())
    response.interfaces.interfaces.append(veth)
    assert line_of(response).warnings == ()


def test_a_nameless_device_with_an_interface_is_given() -> None:
    """The agent paired both by the interface's name, and the link names its device."""
    response = with_claims(claim_request(nameless()))
    interface = claimed_interface(nameless(), link=answers.link())
    interface.pci.CopyFrom(claim_device(driver="mlx5_core").pci)
    response.interfaces.interfaces.append(interface)
    line = line_of(response)
    assert (devices_of(line), line.warnings) == ([VF], ())


def test_a_variable_of_a_known_device_adds_nothing() -> None:
    response = with_claims(claim_request(claim_device()))
    response.environment.envs["SRIOVNETWORK_VF_DEVICE_vf_5"] = VF.upper()
    line = line_of(response)
    assert (devices_of(line), line.warnings) == ([VF], ())


def test_a_variable_of_another_device_is_a_warning() -> None:
    response = with_claims(claim_request(claim_device()))
    for number in range(6):
        response.environment.envs[f"SRIOVNETWORK_VF_DEVICE_{number}"] = f"0000:ff:00.{number}"
    line = line_of(response)
    assert devices_of(line) == [VF]
    (warning,) = line.warnings
    assert warning.startswith("a variable of the SR-IOV driver names a device that no attribute")
    assert warning.endswith("and 2 more")


def unread(response: api.AllResponse) -> None:
    response.resources.claims_error.CopyFrom(part_error("claims"))


def unread_interfaces(response: api.AllResponse) -> None:
    response.interfaces.claims_error.CopyFrom(part_error("claims"))


def without_a_source(response: api.AllResponse) -> None:
    response.resources.claims.append(claim_request(source=NO_SOURCE))


def of_an_older_agent(response: api.AllResponse) -> None:
    response.resources.dynamic_resources.add(claim_name="nic", claim_namespace="telco")


def without_podresources(response: api.AllResponse) -> None:
    unread_interfaces(response)
    without_resources(response)


NOT_KNOWN = pytest.mark.parametrize(
    ("change", "reason", "why"),
    [
        (unread, "POD_RESOURCES_UNAVAILABLE", "socket cannot be reached"),
        (unread_interfaces, "POD_RESOURCES_UNAVAILABLE", "socket cannot be reached"),
        (without_a_source, "DEVICES_NOT_KNOWN", "request vf of claim nic only devices are given"),
        (of_an_older_agent, "DEVICES_NOT_KNOWN", "of resource claim telco/nic only devices"),
        (without_podresources, "POD_RESOURCES_UNAVAILABLE", "socket cannot be reached"),
    ],
)


@NOT_KNOWN
def test_claims_that_are_not_known_are_no_absent_device(
    change: Callable[[api.AllResponse], None], reason: str, why: str
) -> None:
    response = with_claims()
    change(response)
    error = refusal_of(response)
    assert error.reason == reason and why in error.message


@NOT_KNOWN
def test_unknown_claims_beside_another_device_are_a_warning(
    change: Callable[[api.AllResponse], None], reason: str, why: str
) -> None:
    del reason
    response = facts()
    change(response)
    line = line_of(response)
    assert "0000:3b:02.1" in devices_of(line)
    assert any(why in warning for warning in line.warnings)


def test_a_request_that_cannot_be_read_makes_no_line() -> None:
    response = facts()
    response.resources.claims.append(claim_request(error=part_error("claims")))
    assert isinstance(refusal_of(response), Unavailable)


def of_device_info() -> api.AllResponse:
    """A network whose device-info names a function that no variable names."""
    function = answers.sriov(1)
    function.ClearField("allocated")
    return with_interfaces(function)


def test_claims_with_known_addresses_show_a_foreign_device() -> None:
    response = of_device_info()
    response.resources.claims.append(claim_request(claim_device()))
    line = line_of(response)
    assert devices_of(line) == [VF]
    assert "it may be another container's of the pod" in line.warnings[0]


@pytest.mark.parametrize(
    "request_",
    [claim_request(nameless()), claim_request(source=NO_SOURCE)],
)
def test_a_claim_without_addresses_proves_no_foreign_device(request_: api.ClaimRequest) -> None:
    response = of_device_info()
    response.resources.claims.append(request_)
    assert devices_of(line_of(response)) == ["0000:3b:02.1"]


def test_a_reported_device_of_a_claim_is_the_containers_own() -> None:
    response = of_device_info()
    response.resources.devices.add(ID="0000:3b:02.1", resourceName="intel.com/n3")
    device = claim_device(1)
    response.interfaces.interfaces[0].claim.CopyFrom(interface_claim(device))
    assert devices_of(line_of(response)) == ["0000:3b:02.1"]


def test_the_function_of_a_vdpa_device_is_on_no_line() -> None:
    vdpa = api.VDPADevice(driver="vhost", path="/dev/vhost-vdpa-0")
    interface = reported("net1", api.DEVICE_TYPE_VDPA, vdpa=vdpa)
    interface.claim.CopyFrom(interface_claim(claim_device()))
    response = with_interfaces(interface)
    response.resources.claims.append(claim_request(claim_device()))
    assert devices_of(line_of(response)) == []


@pytest.mark.parametrize("health", ["Unhealthy", "Unknown", "Smoking"])
def test_a_device_that_is_not_healthy_is_a_warning(health: str) -> None:
    device = claim_device(health=health, health_message="it is hot")
    (warning,) = line_of(with_claims(claim_request(device))).warnings
    assert warning == (
        f"device vf-5 of request vf of claim nic: the kubelet reports it as {health}: it is hot"
    )


@pytest.mark.parametrize("health", ["", "Healthy"])
def test_a_healthy_device_needs_no_warning(health: str) -> None:
    device = claim_device(health=health, health_message="fine")
    assert line_of(with_claims(claim_request(device))).warnings == ()


@pytest.mark.parametrize("kind", ["Ready", "NetworkReady", "RDMALinkReady"])
def test_a_condition_that_is_false_is_a_warning(kind: str) -> None:
    condition = api.DeviceCondition(type=kind, status="False", reason="NoCarrier", message="down")
    device = claim_device(conditions=[condition])
    for response in (
        with_claims(claim_request(device)),
        without_resources(with_interfaces(claimed_interface(device))),
    ):
        assert (
            "device vf-5 of request vf of claim nic: its driver reports that it is not"
            f" {kind}: NoCarrier: down"
        ) in line_of(response).warnings


@pytest.mark.parametrize(
    ("kind", "status"), [("NetworkReady", "True"), ("NetworkReady", "Unknown"), ("Own", "False")]
)
def test_any_other_condition_needs_no_warning(kind: str, status: str) -> None:
    device = claim_device(conditions=[api.DeviceCondition(type=kind, status=status)])
    assert line_of(with_claims(claim_request(device))).warnings == ()


def test_a_shared_function_of_vfio_is_a_warning() -> None:
    (warning,) = line_of(with_claims(claim_request(claim_device(share_id="5e2f")))).warnings
    assert warning == (
        "device vf-5 of request vf of claim nic: its shareID is 5e2f, so another claim may have it"
        " too, and VFIO opens a device for one process only"
    )
    shared = claim_device(share_id="5e2f", driver="mlx5_core")
    (warning,) = line_of(with_claims(claim_request(shared))).warnings
    assert "no link of PCI device" in warning


def test_the_health_of_a_device_that_is_left_out_is_no_warning() -> None:
    left_out = claim_device(driver="iavf", health="Unhealthy")
    line = line_of(with_claims(claim_request(left_out, claim_device(6))))
    assert not any("Unhealthy" in warning for warning in line.warnings)


def test_a_plugins_device_that_is_not_healthy_is_a_warning() -> None:
    response = facts()
    response.resources.devices[0].health = "Unhealthy"
    (warning,) = line_of(response).warnings
    assert warning == (
        "device 0000:3b:02.1 of intel.com/sriov: the kubelet reports it as Unhealthy"
    )


def test_a_message_about_health_is_cut() -> None:
    device = claim_device(health="Unhealthy", health_message="x" * 5000)
    (warning,) = line_of(with_claims(claim_request(device))).warnings
    assert len(warning) < 300


def test_a_claimed_function_far_from_the_cpus_is_a_warning() -> None:
    (warning,) = line_of(with_claims(claim_request(claim_device(numa_node=1)))).warnings
    assert f"device {VF} is on NUMA node 1, the CPUs are on 0" in warning


def test_the_driver_names_a_node_that_sysfs_does_not() -> None:
    device = claim_device()
    device.pci.ClearField("numa_node")
    device.attributes["resource.kubernetes.io/numaNode"].int_values.extend([1, 2])
    (warning,) = line_of(with_claims(claim_request(device))).warnings
    assert f"device {VF} is on NUMA node 1-2, the CPUs are on 0" in warning


def test_a_token_of_a_claimed_function_is_an_argument() -> None:
    uuid = "02bddbbf-bbb0-4d79-886b-91bad3fbb510"
    interface = answers.sriov(5)
    interface.ClearField("network")
    interface.allocated.info.update({"extra": {"VFIO_TOKEN": uuid}})
    interface.claim.CopyFrom(interface_claim(claim_device()))
    line = line_of(with_interfaces(interface))
    assert f"--vfio-vf-token={uuid}" in line.words and devices_of(line) == [VF]


TEXT = st.text(max_size=40)
NAME = st.sampled_from([PCI_BUS_ID, "pciBusID", "resource.kubernetes.io/numaNode"]) | TEXT
ATTRIBUTE = st.one_of(
    TEXT.map(lambda value: api.DeviceAttribute(string_value=value)),
    TEXT.map(lambda value: api.DeviceAttribute(version_value=value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: api.DeviceAttribute(int_value=value)),
    st.lists(TEXT, max_size=3).map(lambda values: api.DeviceAttribute(string_values=values)),
    st.sampled_from([VF, "0000:3b:02.1"]).map(
        lambda value: api.DeviceAttribute(string_value=value)
    ),
)


@given(TEXT, TEXT, TEXT, st.dictionaries(NAME, ATTRIBUTE, max_size=3), st.booleans())
@example("0000-3b-02-5 -a", "\n--vdev=x", "-a", {}, True)
@example("x", "y", "z", {PCI_BUS_ID: api.DeviceAttribute(string_value=f"{VF}\n")}, False)
def test_no_claim_can_add_an_argument(
    device_name: str, name: str, text: str, attributes: dict[str, Any], present: bool
) -> None:
    device = api.ClaimDevice(
        pool=text,
        device=device_name,
        attributes=attributes,
        network_data=api.ClaimNetworkData(interface_name=text, ips=[text], hardware_address=text),
        share_id=text,
        conditions=[api.DeviceCondition(type=text, status="False", reason=text, message=text)],
        pci=claim_device().pci if present else None,
        health=text,
        health_message=text,
    )
    names = {"pod_claim": name, "claim_name": text, "request": name, "driver": text}
    own = api.Interface(
        name=name,
        device_type=api.DEVICE_TYPE_SR_IOV,
        pci=device.pci if present else None,
        claim=api.InterfaceClaim(device=device, source=api.CLAIM_SOURCE_NODE, **names),
    )
    given_ = claim_request(device, **names)
    for response in (with_claims(given_), with_interfaces(own), facts()):
        if not response.resources.claims:
            response.resources.claims.append(given_)
        response.environment.envs["SRIOVNETWORK_VF_DEVICE_x"] = text
        try:
            line = line_of(response)
        except NetUtilError as error:
            assert error.reason in (*("DEVICE_UNUSABLE", "DEVICES_NOT_KNOWN", "NO_DPDK_DEVICE"),)
            continue
        assert set(devices_of(line)) <= {VF, "0000:3b:02.1"}
        assert len(line.words) <= 2 + 2 * 2 + 2
        assert all(word.isprintable() and " " not in word for word in line.words)
