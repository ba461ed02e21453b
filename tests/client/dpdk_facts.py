"""What a DPDK container asks for and gets, for the tests of its command line."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from netutil.client import All, NetUtilError
from netutil.client.conversion import result
from netutil.client.dpdk import CommandLine, command_line
from netutil.v1alpha import netutil_pb2 as api

from tests.client import device_answers as answers

GIBIBYTE, MEBIBYTE = answers.GIBIBYTE, answers.MEBIBYTE


def facts() -> api.AllResponse:
    everything = answers.everything()
    everything.cpu.affinity = "0-3"
    del everything.hugepages.pod[:]
    for one in everything.hugepages.containers:
        one.ClearField("granted_request_bytes")
        one.ClearField("granted_limit_bytes")
    return everything


def line_of(response: Message, *, numa_mem: bool = False) -> CommandLine:
    return command_line(result(All, response), numa_mem=numa_mem)


def refusal_of(response: Message) -> NetUtilError:
    with pytest.raises(NetUtilError) as caught:
        line_of(response)
    return caught.value


def option(line: CommandLine, name: str) -> str:
    (found,) = (word for word in line.words if word.startswith(f"{name}="))
    return found.partition("=")[2]


def with_interfaces(*interfaces: api.Interface) -> api.AllResponse:
    response = facts()
    del response.interfaces.interfaces[:]
    response.interfaces.interfaces.extend(interfaces)
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
