"""Encoded answer to GetInterfaces: encoded once, then completed with the counters of each call.

While no counter changes, the whole answer is the same.
Each link is put together from its bytes and those of its counters. A second `link` behind the
first would mean the same, but not every decoder merges the two (protobuf.js before its pull
request 2195 takes the last).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netutil.agent.collect.results import Interfaces, InterfacesAnswer
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages import convert_devices
from netutil.agent.messages.encode import join
from netutil.agent.parsers.rtnetlink import Counters
from netutil.v1alpha import netutil_pb2 as api


@dataclass(frozen=True, slots=True)
class _EncodedInterface:
    """One interface. `link` is without counters, and None where there is none."""

    index: int
    link: bytes | None
    rest: bytes


@dataclass(frozen=True, slots=True)
class _Counted:
    """An answer, and the counters in it."""

    counters: Mapping[int, Counters]
    answer: EncodedMessage


@dataclass(slots=True, eq=False)
class EncodedInterfaces:
    """An answer without counters. `rest` are its fields besides `interfaces`.

    `last` is the answer with counters that was made last.
    """

    interfaces: tuple[_EncodedInterface, ...]
    rest: bytes
    last: _Counted | None = None

    def size_bytes(self) -> int:
        """Return how large the answer is, without counters, tags and lengths."""
        return len(self.rest) + sum(len(one.rest) + len(one.link or b"") for one in self.interfaces)


def without_counters(found: Interfaces) -> EncodedInterfaces:
    """Return the answer to GetInterfaces but for the counters."""
    message = convert_devices.interfaces(found)
    interfaces = tuple(_encoded(one) for one in message.interfaces)
    message.ClearField("interfaces")
    return EncodedInterfaces(interfaces, message.SerializeToString())


def _encoded(interface: api.Interface) -> _EncodedInterface:
    if not interface.HasField("link"):
        return _EncodedInterface(0, None, interface.SerializeToString())
    link = interface.link
    link.ClearField("counters")
    index, body = link.index, link.SerializeToString()
    interface.ClearField("link")
    return _EncodedInterface(index, body, interface.SerializeToString())


def with_counters(answer: EncodedInterfaces, counters: Mapping[int, Counters]) -> EncodedMessage:
    """Return the answer to GetInterfaces with the counters of each link, by its index.

    `counters` are not to be changed.
    """
    last = answer.last
    if last is None or last.counters != counters:
        last = answer.last = _Counted(counters, _with_counters(answer, counters))
    return last.answer


def _with_counters(answer: EncodedInterfaces, counters: Mapping[int, Counters]) -> EncodedMessage:
    interfaces = [
        (
            "interfaces",
            one.rest if one.link is None else _counted(one.rest, one.link, counters[one.index]),
        )
        for one in answer.interfaces
    ]
    return EncodedMessage(join(api.InterfacesResponse, interfaces) + answer.rest)


def _counted(rest: bytes, link: bytes, found: Counters) -> bytes:
    """Return an interface with its link and the counters of that."""
    counters = api.LinkCounters(
        rx_bytes=found.rx_bytes,
        tx_bytes=found.tx_bytes,
        rx_packets=found.rx_packets,
        tx_packets=found.tx_packets,
        rx_errors=found.rx_errors,
        tx_errors=found.tx_errors,
        rx_dropped=found.rx_dropped,
        tx_dropped=found.tx_dropped,
    )
    counted = link + join(api.Link, [("counters", counters.SerializeToString())])
    return rest + join(api.Interface, [("link", counted)])


INTERFACES = InterfacesAnswer(without_counters, with_counters, EncodedInterfaces.size_bytes)
"""The answer to GetInterfaces."""
