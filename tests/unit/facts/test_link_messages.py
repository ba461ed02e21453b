"""Links of kinds that this machine's kernel does not have, from the messages that others send."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.facts import links as links_module
from netutil.agent.facts import rtnetlink
from netutil.agent.facts.links import read_links

from tests.support.namespaces import network_namespace
from tests.support.processes import open_descriptors

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
]


def message_of_link(link_type: int, address: bytes) -> bytes:
    """An RTM_NEWLINK as the kernel sends it, of kinds that this kernel does not have."""

    def attribute(kind: int, value: bytes) -> bytes:
        whole = struct.pack("=HH", 4 + len(value), kind) + value
        return whole + bytes(-len(whole) % 4)

    body = struct.pack("=BBHiII", 0, 0, link_type, 3, 0, 0)
    body += attribute(3, b"net1\0") + attribute(1, address) + attribute(4, struct.pack("=I", 1480))
    return struct.pack("=IHHII", 16 + len(body), 16, 0, 1, 0) + body


@pytest.mark.parametrize(
    ("link_type", "address", "mac"),
    [
        (32, bytes(range(20)), ":".join(f"{n:02x}" for n in range(20))),  # InfiniBand
        (768, bytes([10, 0, 0, 1]), "10.0.0.1"),  # tunl0, which Calico leaves in every pod
        (769, bytes(16), "::"),  # ip6tnl0
    ],
)
def test_hardware_addresses_of_other_lengths_are_carried_whole(
    link_type: int, address: bytes, mac: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump(_: socket.socket, kind: int, __: bytes) -> tuple[rtnetlink.Message, ...]:
        sent = message_of_link(link_type, address)
        return (rtnetlink.Message(16, sent),) if kind == 18 else ()

    monkeypatch.setattr(links_module, "dump", dump)
    with network_namespace() as namespace:
        (link,) = read_links(namespace.directory)
    assert (link.name, link.mac, link.mtu) == ("net1", mac, 1480)


@pytest.mark.parametrize(("family", "is_default"), [(2, True), (10, True), (28, False)])
def test_a_route_of_another_family_is_no_default_route(family: int, is_default: bool) -> None:
    """AF_MPLS, say; the answer has IP versions alone."""
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 0, 0, 1, 0)
    sent = struct.pack("=IHHII", 16 + len(body), 24, 0, 1, 0) + body
    assert links_module.is_default_route(rtnetlink.Message(24, sent)) is is_default


def without_its_end(message: bytes) -> bytes:
    return struct.pack("=I", 20) + message[4:20]


def with_an_attribute_of_two_bytes(message: bytes) -> bytes:
    """IFLA_STATS64, which has 200 and more."""
    whole = message[:16] + message[16:32] + struct.pack("=HHH", 6, 23, 1) + bytes(2)
    return struct.pack("=I", len(whole)) + whole[4:]


@pytest.mark.parametrize("spoil", [without_its_end, with_an_attribute_of_two_bytes])
def test_an_unexpected_message_is_an_error(
    spoil: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = spoil(message_of_link(1, bytes(6)))

    def dump(_: socket.socket, kind: int, __: bytes) -> tuple[rtnetlink.Message, ...]:
        return (rtnetlink.Message(16, sent),) if kind == 18 else ()

    monkeypatch.setattr(links_module, "dump", dump)
    with network_namespace() as namespace, pytest.raises(Unavailable) as refused:
        read_links(namespace.directory)
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_NOT_READABLE
    assert "not as expected" in refused.value.message


def test_a_list_of_functions_that_breaks_its_message_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = message_of_link(1, bytes(6))

    def dump(_: socket.socket, kind: int, request: bytes) -> tuple[rtnetlink.Message, ...]:
        asks_for_functions = len(request) > 16
        sent = without_its_end(good) if asks_for_functions else good
        return (rtnetlink.Message(16, sent),) if kind == 18 else ()

    monkeypatch.setattr(links_module, "dump", dump)
    with network_namespace() as namespace:
        descriptors = open_descriptors()
        (link,) = read_links(namespace.directory)
        assert open_descriptors() == descriptors
    assert (link.name, link.num_vfs) == ("net1", None)
