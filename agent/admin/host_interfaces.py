"""Reports the network interfaces of the node: `host_interfaces` of DescribeNode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from msgspec.structs import asdict
from netutil.agent.admin.explain import to_valid_utf8
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import AgentError, unreadable
from netutil.agent.facts.host_interfaces import (
    FIRST_PROCESS,
    HostInterface,
    HostInterfaces,
    LinkSpeed,
    read_host_interfaces,
    read_speeds,
)
from netutil.agent.messages.status import part_error
from netutil.v1alpha import netutil_pb2
from netutil.v1alpha import node_pb2 as api

_LANE, _SPEEDS_LANE = "host-interfaces", "host-interfaces/speeds"
"""Lanes of reads of their own: a driver that does not answer delays nothing but speeds."""
_READ = "the links of the node"
_SPEEDS = "the speeds of the node's links"
_PART = "host_interfaces"


async def report_interfaces(
    reads: ReadPool, host_root: str, first_process: str = FIRST_PROCESS
) -> api.HostInterfaces:
    """Return the links of the node, with the error of what is not known of them.

    Speeds are read apart from the links: a driver may be slow.
    """
    try:
        found = await reads.run(_LANE, partial(read_host_interfaces, first_process), _READ)
    except AgentError as error:
        return api.HostInterfaces(error=part_error(_PART, error))
    except OSError as error:
        return api.HostInterfaces(error=part_error(_PART, _failure(error, _READ)))
    speeds: Mapping[str, LinkSpeed] = {}
    missing = found.error
    try:
        read = partial(read_speeds, host_root, found.interfaces)
        speeds = await reads.run(_SPEEDS_LANE, read, _SPEEDS)
    except AgentError as error:
        missing = missing or error
    except OSError as error:
        missing = missing or _failure(error, _SPEEDS)
    try:  # thousands of messages would take the loop a tenth of a second
        return await reads.run(_LANE, partial(_message, found, speeds, missing), _READ)
    except AgentError as error:
        return api.HostInterfaces(error=part_error(_PART, error))


def _failure(error: OSError, read: str) -> AgentError:
    return unreadable(error, str(error.filename or read))


def _message(
    found: HostInterfaces, speeds: Mapping[str, LinkSpeed], missing: AgentError | None
) -> api.HostInterfaces:
    return api.HostInterfaces(
        interfaces=[_interface(one, speeds.get(one.name)) for one in found.interfaces],
        truncated=found.truncated,
        error=None if missing is None else part_error(_PART, missing),
    )


def _interface(one: HostInterface, speed: LinkSpeed | None) -> api.HostInterface:
    answer = api.HostInterface(
        name=to_valid_utf8(one.name),
        counters=netutil_pb2.LinkCounters(**asdict(one.counters)),
    )
    link = one.link
    if link is not None:
        answer.index, answer.kind, answer.mac = link.index, to_valid_utf8(link.kind), link.mac
        answer.mtu, answer.up = link.mtu, link.up
        answer.operational_state, answer.master = link.operational_state, to_valid_utf8(one.master)
        answer.parent_device_bus = to_valid_utf8(link.parent_device_bus)
        answer.parent_device = to_valid_utf8(link.parent_device)
    if speed is not None and speed.megabits is not None:
        answer.speed_megabits = speed.megabits
    if speed is not None and speed.duplex is not None:
        answer.duplex = speed.duplex
    return answer
