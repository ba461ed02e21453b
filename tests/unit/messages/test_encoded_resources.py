"""The answer to GetResource is made once, and again as soon as one of its two sources differs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from netutil.agent.collect.results import GivenDevices, GivenFunctions
from netutil.agent.kubelet.podresources.model import ContainerResources, DeviceAllocation
from netutil.agent.messages import convert_devices, encode
from netutil.agent.parsers.pci import PciInfo

VF = "0000:3b:01.0"
FOUND = ContainerResources(
    (DeviceAllocation("intel.com/sriov", (VF, "tun"), (0,)),), (2, 3), (), (), datetime.now(UTC)
)


def functions(driver: str) -> GivenDevices:
    return GivenDevices(GivenFunctions((PciInfo(VF, driver=driver),)))


def test_the_same_answer_is_given_while_nothing_changes() -> None:
    first = encode.resources(FOUND, functions("iavf"))
    assert encode.resources(FOUND, functions("iavf")) is first
    made = convert_devices.resources(FOUND, functions("iavf"))
    assert first.body == made.SerializeToString()


def test_another_driver_or_another_list_is_another_answer() -> None:
    first = encode.resources(FOUND, functions("iavf"))
    rebound = encode.resources(FOUND, functions("vfio-pci"))
    assert rebound.body != first.body
    listed = replace(FOUND, cpu_ids=(), kept={})
    assert encode.resources(listed, functions("vfio-pci")).body != rebound.body


def test_values_are_derived_once() -> None:
    assert FOUND.pci_addresses == (VF,)
    assert FOUND.pci_addresses is FOUND.pci_addresses
    assert FOUND.without_cpus is FOUND.without_cpus
    assert (FOUND.without_cpus.cpu_ids, FOUND.without_cpus.devices) == ((), FOUND.devices)
    assert FOUND.without_cpus.kept is not FOUND.kept
