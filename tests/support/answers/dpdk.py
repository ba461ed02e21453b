"""The facts and arguments of a DPDK container, for the tests of its command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from netutil.client import All, NetUtilError
from netutil.client.dpdk.eal import CommandLine, command_line
from netutil.client.dpdk.view import HugetlbMount, OwnView
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers

GIBIBYTE, MEBIBYTE = answers.GIBIBYTE, answers.MEBIBYTE


def facts() -> api.AllResponse:
    """Nothing in it is to be warned of: no claim, no device without an address, no CPU quota.

    The process's own environment names all devices, and no AF_XDP device is in any.
    """
    everything = answers.everything()
    everything.cpu.affinity = "0-3"
    everything.cpu.ClearField("quota_cores")
    everything.cpu.ClearField("quota_microseconds")
    del everything.resources.devices[1:], everything.resources.dynamic_resources[:]
    del everything.resources.claims[:]
    everything.resources.ClearField("pci_error")
    everything.interfaces.ClearField("start_error")
    set_from_start(everything, value=False)
    del everything.interfaces.af_xdp.devices[:]
    del everything.hugepages.pod[:]
    for one in everything.hugepages.containers:
        one.ClearField("granted_request_bytes")
        one.ClearField("granted_limit_bytes")
    return everything


def set_from_start(response: api.AllResponse, *, value: bool) -> None:
    """Set in each device whether only the environment of the container's start names the device."""
    for interface in response.interfaces.interfaces:
        if interface.HasField("allocated"):
            interface.allocated.from_start = value


def line_of(
    response: Message, *, numa_mem: bool = False, view: OwnView | None = None
) -> CommandLine:
    return command_line(result(All, response), numa_mem=numa_mem, view=view)


def refusal_of(response: Message, view: OwnView | None = None) -> NetUtilError:
    with pytest.raises(NetUtilError) as caught:
        line_of(response, view=view)
    return caught.value


def devices_of(line: CommandLine) -> list[str]:
    return [one.words[1] for one in line.arguments if one.words[0] == "-a"]


def option(line: CommandLine, name: str) -> str:
    (found,) = (word for word in line.words if word.startswith(f"{name}="))
    return found.partition("=")[2]


def with_interfaces(*interfaces: api.Interface) -> api.AllResponse:
    """PodResources name no device: the interfaces are all that there is."""
    response = facts()
    del response.resources.devices[:]
    del response.interfaces.interfaces[:]
    response.interfaces.interfaces.extend(interfaces)
    set_from_start(response, value=False)
    return response


def reported(name: str, device_type: int, **info: Message) -> api.Interface:
    device_info = api.DeviceInfo(type="x", **info)  # type: ignore[arg-type]
    network = api.NetworkStatus(
        name="default/user", interface=name, mac="0a:00:00:00:00:07", device_info=device_info
    )
    return api.Interface(name=name, device_type=device_type, network=network)  # type: ignore[arg-type]


def vhost_user(mode: str = "client", path: str = "/run/vhost/net1") -> api.Interface:
    device = api.VhostUserDevice(mode=mode, path=path)
    return reported("net1", api.DEVICE_TYPE_VHOST_USER, vhost_user=device)


def memif(role: str = "slave", mode: str = "ethernet", path: str = "/run/m.sock") -> api.Interface:
    device = api.MemifDevice(role=role, mode=mode, path=path)
    return reported("net1", api.DEVICE_TYPE_MEMIF, memif=device)


ALL_CAPABILITIES = (1 << 41) - 1


def file(path: Path) -> None:
    """Make an empty file and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def view_of(container: Path, **changes: Any) -> OwnView:
    """What a process with everything sees in a container."""
    view = OwnView(
        root=str(container),
        mounts=(HugetlbMount("/dev/hugepages", GIBIBYTE, None),),
        capabilities=ALL_CAPABILITIES,
        user=0,
        runtime_directory="/var/run",
        locked_memory_bytes=None,
        open_files=None,
        may_place_memory=True,
    )
    return replace(view, **changes)


UUID = "02bddbbf-bbb0-4d79-886b-91bad3fbb510"


def with_token(number: int, token: Any, driver: str = "vfio-pci") -> api.Interface:
    """A function as the SR-IOV network device plugin gives it, with additionalInfo."""
    interface = answers.sriov(number, driver=driver)
    interface.allocated.info.update({"extra": {"VFIO_TOKEN": token}})
    return interface
