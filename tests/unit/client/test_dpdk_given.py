"""Every device of the container is on the line, or the output has the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from netutil.client import FailedPrecondition, NetUtilError
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.dpdk import (
    UUID,
    devices_of,
    facts,
    line_of,
    memif,
    refusal_of,
    set_from_start,
    with_interfaces,
    with_token,
)

OTHER_UUID = "3e49019f-412f-4f02-824e-4cd195944205"
QAT = "0000:3d:01.0"


def tokens_of(response: api.AllResponse) -> list[str]:
    words = line_of(response).words
    return [word for word in words if word.startswith("--vfio-vf-token")]


def crypto(driver: str = "vfio-pci", **fields: Any) -> api.PCIInfo:
    given: dict[str, Any] = {"iommu_group": 77, "vendor_id": "0x8086", **fields}
    return api.PCIInfo(address=QAT, driver=driver, **given)


def with_crypto(pci: api.PCIInfo | None = None) -> api.AllResponse:
    """PodResources alone name a crypto function beside net1's."""
    response = facts()
    response.resources.devices.add(ID=QAT, resourceName="qat.intel.com/cy")
    response.resources.pci.append(pci or crypto())
    return response


def test_the_token_of_a_function_is_an_argument() -> None:
    line = line_of(with_interfaces(with_token(1, UUID), answers.sriov(2)))
    (argument,) = (one for one in line.arguments if "token" in one.words[0])
    assert argument.words == (f"--vfio-vf-token={UUID}",)
    assert "VFIO_TOKEN of device 0000:3b:02.1" in argument.source
    assert line.warnings == ()


def test_one_token_of_several_functions_is_one_argument() -> None:
    both = with_interfaces(with_token(1, UUID), with_token(2, UUID.upper()))
    assert tokens_of(both) == [f"--vfio-vf-token={UUID}"]


def test_no_argument_is_made_without_a_token() -> None:
    assert tokens_of(with_interfaces(answers.sriov(1))) == []


def test_two_tokens_make_no_line_and_no_sentence_holds_one() -> None:
    error = refusal_of(with_interfaces(with_token(1, UUID), with_token(2, OTHER_UUID)))
    assert isinstance(error, FailedPrecondition) and error.reason == "VFIO_TOKEN_UNUSABLE"
    assert "0000:3b:02.1 and 0000:3b:02.2 have different VFIO tokens" in error.message
    assert "one physical function" in (error.advice or "")
    assert UUID not in str(vars(error)) and OTHER_UUID not in str(vars(error))


@pytest.mark.parametrize("token", ["", "secret", f"{UUID} ", f"{UUID},x=y", 7, True, [UUID]])
def test_a_malformed_token_makes_no_line(token: object) -> None:
    error = refusal_of(with_interfaces(with_token(1, token)))
    assert error.reason == "VFIO_TOKEN_UNUSABLE" and "is no UUID" in error.message
    assert "additionalInfo" in (error.advice or "")
    assert "one process for each" not in (error.advice or "")
    assert "secret" not in str(vars(error))


def test_the_token_of_a_function_off_the_line_is_not_used() -> None:
    kernels = with_token(1, OTHER_UUID, driver="iavf")
    assert tokens_of(with_interfaces(kernels, with_token(2, UUID))) == [f"--vfio-vf-token={UUID}"]


def test_an_unknown_info_may_hold_a_token_and_is_a_warning() -> None:
    function = answers.sriov(1)
    function.allocated.ClearField("info")
    function.allocated.problem = "has an info that is not JSON"
    (warning,) = line_of(with_interfaces(function)).warnings
    assert "has an info that is not JSON in PCIDEVICE_INTEL_COM_SRIOV_INFO" in warning
    assert "VFIO token" in warning


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["extra", "VFIO_TOKEN", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["extra", "generic"]), JSON))
def test_no_info_adds_anything_but_a_uuid(info: Mapping[str, Any]) -> None:
    function = answers.sriov(1)
    function.allocated.info.CopyFrom(Struct())
    function.allocated.info.update(info)
    try:
        assert all(
            len(word) == len("--vfio-vf-token=") + 36
            for word in tokens_of(with_interfaces(function))
        )
    except NetUtilError as error:
        assert error.reason == "VFIO_TOKEN_UNUSABLE"


def test_a_crypto_function_of_podresources_is_on_the_line() -> None:
    line = line_of(with_crypto())
    assert devices_of(line) == ["0000:3b:02.1", QAT]
    (argument,) = (one for one in line.arguments if QAT in one.words)
    assert argument.source == f"device {QAT} of qat.intel.com/cy (PodResources)"
    assert line.warnings == ()


def test_a_function_named_by_a_qat_variable_is_on_the_line() -> None:
    allocated = api.AllocatedDevice(variable="QAT0", pci_address=QAT, name=QAT)
    crypto_device = api.Interface(
        device_type=api.DEVICE_TYPE_SR_IOV, allocated=allocated, pci=crypto()
    )
    response = with_crypto()
    response.interfaces.interfaces.append(crypto_device)
    line = line_of(response)
    assert devices_of(line) == ["0000:3b:02.1", QAT]
    assert "device of QAT0" in next(one.source for one in line.arguments if QAT in one.words)


def test_a_function_of_the_kernel_is_reported_as_left_out() -> None:
    line = line_of(with_crypto(crypto("4xxxvf")))
    assert devices_of(line) == ["0000:3b:02.1"]
    assert f"device {QAT} of qat.intel.com/cy is left out" in line.warnings[0]


@pytest.mark.parametrize(
    ("pci", "why"),
    [
        (crypto(""), "is bound to no driver"),
        (crypto("qat_vfio_pci"), "of VFIO, EAL takes vfio-pci only"),
        (crypto(vendor_id="0x15b3"), "NVIDIA (Mellanox)"),
        (crypto(iommu_group=None), "is in no IOMMU group"),
    ],
)
def test_one_that_cannot_work_makes_no_line(pci: api.PCIInfo, why: str) -> None:
    error = refusal_of(with_crypto(pci))
    assert error.reason == "DEVICE_UNUSABLE"
    assert QAT in error.message and why in error.message
    assert (error.advice or "").startswith("netutil devices shows")


def removed(response: api.AllResponse) -> None:
    del response.resources.pci[1:]
    response.resources.absent_pci.append(QAT)


def unread(response: api.AllResponse) -> None:
    del response.resources.pci[1:]
    response.resources.pci_error.CopyFrom(answers.part_error("pci"))


def of_an_older_agent(response: api.AllResponse) -> None:
    del response.resources.pci[:]


@pytest.mark.parametrize(
    ("change", "why", "advice"),
    [
        (removed, "the node has no PCI device 0000:3d:01.0", "netutil devices shows"),
        (unread, "The kubelet's PodResources socket cannot be reached", ""),
        (of_an_older_agent, "this agent, older than the client", "upgrade the agent"),
    ],
)
def test_one_of_which_nothing_is_known_makes_no_line(
    change: Callable[[api.AllResponse], None], why: str, advice: str
) -> None:
    response = with_crypto()
    change(response)
    error = refusal_of(response)
    assert why in error.message and advice in (error.advice or "")


def test_a_device_without_an_address_is_reported_as_omitted() -> None:
    response = facts()
    response.resources.devices.add(ID="tun", resourceName="example.com/tun")
    (warning,) = line_of(response).warnings
    assert warning == (
        "device tun of example.com/tun (PodResources) is left out: its ID is no PCI address, and"
        " nothing says which device it is"
    )


def test_a_claim_is_reported_as_omitted() -> None:
    response = facts()
    response.resources.dynamic_resources.add(claim_name="nic", claim_namespace="telco")
    assert "resource claim telco/nic" in line_of(response).warnings[0]


def of_a_login_shell() -> api.AllResponse:
    """Its environment names nothing, and the one of the container's start is not readable."""
    response = facts()
    response.interfaces.interfaces[1].ClearField("allocated")
    error = answers.part_error("start")
    error.reason, error.message = "ENVIRONMENT_NOT_READABLE", "It is not for the caller."
    response.interfaces.start_error.CopyFrom(error)
    return response


def test_a_login_shell_gets_podresources_devices_and_a_warning() -> None:
    line = line_of(of_a_login_shell())
    assert devices_of(line) == ["0000:3b:02.1"]
    (warning,) = line.warnings
    assert "a VFIO token in it would be missing: It is not for the caller." in warning


def without_podresources(response: api.AllResponse) -> None:
    response.ClearField("resources")
    response.errors.append(answers.part_error("resources"))


def with_an_id_without_an_address(response: api.AllResponse) -> None:
    response.resources.devices.add(ID="nic-7", resourceName="example.com/nic")


@pytest.mark.parametrize("change", [without_podresources, with_an_id_without_an_address])
def test_a_login_shell_with_unknown_devices_makes_no_line(
    change: Callable[[api.AllResponse], None],
) -> None:
    response = of_a_login_shell()
    change(response)
    error = refusal_of(response)
    assert isinstance(error, FailedPrecondition) and error.reason == "DEVICES_NOT_KNOWN"
    assert "this process's environment names none" in error.message
    assert "It is not for the caller." in error.message


def test_a_device_without_podresources_is_omitted_and_warned() -> None:
    response = facts()
    without_podresources(response)
    assert "that no variable and no network names is left out" in line_of(response).warnings[0]


def af_xdp(*names: str) -> api.AllResponse:
    """A pod whose second link is one of the AF_XDP device plugin."""
    response = facts()
    del response.resources.devices[:]
    del response.interfaces.interfaces[1:]
    for name in names:
        link = api.Link(kind="", mtu=1500)
        response.interfaces.interfaces.add(name=name, device_type=api.DEVICE_TYPE_HOST, link=link)
    return response


def test_a_link_of_the_af_xdp_plugin_is_a_virtual_device() -> None:
    response = af_xdp("ens1f0")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    response.resources.devices.add(ID="ens1f0", resourceName="afxdp/pool")
    line = line_of(response)
    socket = "/tmp/afxdp_dp/ens1f0/afxdp.sock"
    assert line.words[2:4] == (
        "--no-pci",
        f"--vdev=net_af_xdp0,iface=ens1f0,use_cni=1,dp_path={socket}",
    )
    (argument,) = (one for one in line.arguments if "af_xdp" in one.words[0])
    assert "not verified" in argument.source
    (warning,) = line.warnings
    assert f"{socket} is not verified" in warning


def of_a_login_shell_that_lost_one_variable() -> api.AllResponse:
    """AFXDP_DEVICES is all that it lost, and a network names another device: there is a line."""
    response = af_xdp("ens1f0")
    response.interfaces.interfaces.append(memif())
    without_podresources(response)
    return response


def test_an_af_xdp_device_of_the_start_is_on_the_line() -> None:
    response = of_a_login_shell_that_lost_one_variable()
    started = answers.af_xdp_device("ens1f0", from_start=True)
    response.interfaces.af_xdp.devices.append(started)
    line = line_of(response)
    assert any("net_memif0" in word for word in line.words)
    (argument,) = (one for one in line.arguments if "net_af_xdp0,iface=ens1f0" in one.words[0])
    assert argument.source.endswith("(AFXDP_DEVICES of the container's start)")
    assert any("AFXDP_DEVICES names links of one pool" in one for one in line.warnings)


def test_a_line_without_af_xdp_variables_is_whole() -> None:
    line = line_of(of_a_login_shell_that_lost_one_variable())
    assert not any("af_xdp" in word for word in line.words)
    assert not any("AFXDP" in warning for warning in line.warnings)


def with_a_start_that_is_not_readable(response: api.AllResponse) -> None:
    response.interfaces.start_error.CopyFrom(answers.part_error("start"))
    response.interfaces.start_error.message = "It is not for the caller."


def with_an_agent_that_does_not_read_the_variable(response: api.AllResponse) -> None:
    response.interfaces.ClearField("af_xdp")


UNKNOWN_STARTS = pytest.mark.parametrize(
    ("change", "why", "advice"),
    [
        (with_a_start_that_is_not_readable, "It is not for the caller.", "as the user of"),
        (with_an_agent_that_does_not_read_the_variable, "older than the client", "upgrade"),
    ],
)


@UNKNOWN_STARTS
def test_unknown_af_xdp_devices_of_the_start_make_no_line(
    change: Callable[[api.AllResponse], None], why: str, advice: str
) -> None:
    response = facts()  # its own environment names another device, and may have lost this variable
    without_podresources(response)
    change(response)
    error = refusal_of(response)
    assert isinstance(error, FailedPrecondition) and error.reason == "DEVICES_NOT_KNOWN"
    assert "which AF_XDP devices the container was given is not known" in error.message
    assert why in error.message and "PodResources socket cannot be reached" in error.message
    assert advice in (error.advice or "") and "set AFXDP_DEVICES" in (error.advice or "")


@UNKNOWN_STARTS
@pytest.mark.parametrize("value", ["", "eth0"])
def test_an_environment_with_af_xdp_devices_has_a_line(
    change: Callable[[api.AllResponse], None], why: str, advice: str, value: str
) -> None:
    del why, advice
    response = facts()
    without_podresources(response)
    change(response)
    response.environment.envs["AFXDP_DEVICES"] = value
    assert ("af_xdp" in str(line_of(response).words)) is bool(value)


@UNKNOWN_STARTS
def test_podresources_say_which_af_xdp_devices_a_login_shell_has(
    change: Callable[[api.AllResponse], None], why: str, advice: str
) -> None:
    del why, advice
    response = af_xdp("ens1f0")
    response.resources.devices.add(ID="ens1f0", resourceName="afxdp/pool")
    change(response)
    (argument,) = (one for one in line_of(response).arguments if "af_xdp" in one.words[0])
    assert argument.source.endswith("(PodResources, afxdp/pool)")


def test_an_af_xdp_device_of_podresources_proves_no_variable() -> None:
    response = af_xdp("ens1f0")
    response.resources.devices.add(ID="ens1f0", resourceName="afxdp/pool")
    with_an_id_without_an_address(response)
    with_a_start_that_is_not_readable(response)
    assert refusal_of(response).reason == "DEVICES_NOT_KNOWN"


def test_an_af_xdp_link_has_every_source_that_names_it() -> None:
    response = af_xdp("ens1f0", "ens1f1")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    response.resources.devices.add(ID="ens1f0", resourceName="afxdp/pool")
    response.interfaces.af_xdp.devices.extend(
        [answers.af_xdp_device("ens1f0"), answers.af_xdp_device("ens1f1", from_start=True)]
    )
    sources = [one.source for one in line_of(response).arguments if "af_xdp" in one.words[0]]
    assert [source.partition(" (")[2] for source in sources] == [
        "AFXDP_DEVICES; PodResources, afxdp/pool)",
        "AFXDP_DEVICES of the container's start)",
    ]


def test_a_function_of_the_start_alone_is_marked() -> None:
    response = facts()
    set_from_start(response, value=True)
    (argument,) = (one for one in line_of(response).arguments if one.words[0] == "-a")
    assert "PCIDEVICE_INTEL_COM_SRIOV of the container's start" in argument.source


def test_each_af_xdp_link_is_given_once() -> None:
    response = af_xdp("ens1f0", "ens1f1")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    response.resources.devices.add(ID="ens1f1", resourceName="afxdp/pool")
    words = [word for word in line_of(response).words if "af_xdp" in word]
    assert [word.split(",")[:2] for word in words] == [
        ["--vdev=net_af_xdp0", "iface=ens1f0"],
        ["--vdev=net_af_xdp1", "iface=ens1f1"],
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [("ens9", "the pod has no link of that name"), ("a,b", "it is no name of a link")],
)
def test_an_af_xdp_device_that_is_not_there_makes_no_line(name: str, why: str) -> None:
    response = af_xdp("ens1f0")
    response.environment.envs["AFXDP_DEVICES"] = name
    error = refusal_of(response)
    assert error.reason == "DEVICE_UNUSABLE" and why in error.message


def with_malformed_qat(*interfaces: api.Interface) -> api.AllResponse:
    """As of a variable QAT0 without an address; the agent lists QAT0 among the interfaces."""
    allocated = api.AllocatedDevice(
        variable="QAT0", name="0000:b0:00.0x", problem="is no PCI address"
    )
    other = api.Interface(device_type=api.DEVICE_TYPE_UNKNOWN, allocated=allocated)
    return with_interfaces(*interfaces, other)


def test_a_qat_variable_without_an_address_is_a_warning() -> None:
    line = line_of(with_malformed_qat(answers.sriov(1)))
    (warning,) = line.warnings
    assert warning == "device of QAT0 is left out: '0000:b0:00.0x' is no PCI address"
    assert "0000:3b:02.1" in line.words


def test_a_variable_without_a_device_makes_no_line() -> None:
    alone = refusal_of(with_malformed_qat())
    assert alone.reason == "NO_DPDK_DEVICE" and "device of QAT0 is left out" in alone.message
    unread = with_malformed_qat()
    unread.interfaces.start_error.CopyFrom(answers.part_error("start"))
    unread.ClearField("resources")
    unread.errors.append(answers.part_error("resources"))
    assert refusal_of(unread).reason == "DEVICES_NOT_KNOWN"
