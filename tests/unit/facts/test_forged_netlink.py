"""Messages of other processes to the sockets in a network namespace are no facts of it.

A process with CAP_NET_ADMIN in the namespace can send to them. The creator of a namespace has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from netutil.agent.facts.links import network_namespace as namespace_of
from netutil.agent.facts.links import open_namespace
from netutil.agent.facts.network_state import HeldNamespace, open_held
from netutil.agent.facts.rtnetlink import inside, is_of_kernel, messages_of

from tests.support.namespaces import Namespace, network_namespace

pytestmark = pytest.mark.root
_RTMGRP_LINK = 1
_DONE = 3


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")


@pytest.fixture
def process() -> Iterator[Namespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def held(process: Namespace) -> Iterator[HeldNamespace]:
    made = open_held(process.directory, namespace_of(process.directory))
    yield made
    made.close()


@pytest.fixture
def forger(process: Namespace) -> Iterator[socket.socket]:
    """A socket of another process in the namespace."""
    namespace = open_namespace(process.directory)
    try:
        made = inside(
            namespace,
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE),
        )
    finally:
        os.close(namespace)
    with made:
        made.setblocking(False)
        yield made


def ports(process: Namespace, *, of_events: bool) -> list[int]:
    """Return the ports of the sockets in the namespace that have groups, or have none."""
    with open(f"/proc/{process.pid}/net/netlink", encoding="ascii") as text:
        lines = [line.split() for line in text.readlines()[1:]]
    found = [(int(port), int(groups, 16)) for _, kind, port, groups, *_ in lines if kind == "0"]
    return [port for port, groups in found if port and bool(groups) is of_events]


def a_message(kind: int, body: bytes, *, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, sequence, 0) + body


def test_a_dump_takes_no_message_of_another_process(
    process: Namespace, held: HeldNamespace, forger: socket.socket
) -> None:
    forged = a_message(_DONE, bytes(4))  # an empty namespace, if it were the kernel's
    for port in ports(process, of_events=False):
        with pytest.raises(ConnectionRefusedError):
            forger.sendto(forged, (port, 0))
    assert [link.name for link in held.read(process.directory).links] == ["lo"]


def test_a_notification_of_another_process_is_refused(
    process: Namespace, held: HeldNamespace, forger: socket.socket
) -> None:
    (port,) = ports(process, of_events=True)
    with pytest.raises(ConnectionRefusedError):
        forger.sendto(a_message(16, bytes(16)), (port, 0))
    assert not held.has_changed()


def test_messages_of_another_process_are_neither_news_nor_parsed(
    held: HeldNamespace, forger: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def noted(block: bytes) -> Iterator[object]:
        parsed.append(block)
        return iter(messages_of(block))

    monkeypatch.setattr("netutil.agent.facts.network_state.messages_of", noted)
    with contextlib.suppress(OSError):  # the kernel answers to what it takes for a request
        forger.sendto(a_message(16, bytes(16)) * 100, (0, _RTMGRP_LINK))
    assert not held.has_changed()
    assert held.is_drained
    assert not parsed


def test_a_flood_of_others_ends_after_few_reads(
    process: Namespace, held: HeldNamespace, forger: socket.socket
) -> None:
    empty = a_message(0, b"") * 4096
    for _ in range(1000):
        try:
            forger.sendto(empty, (0, _RTMGRP_LINK))
        except OSError as error:
            assert error.errno in (errno.ENOBUFS, errno.EAGAIN)
    held.has_changed()  # perhaps ENOBUFS, which is news
    assert not held.has_changed()
    process.ip("link", "set", "lo", "up")
    assert held.has_changed()


def test_only_port_zero_is_the_kernels() -> None:
    assert is_of_kernel((0, 1))
    assert not is_of_kernel((os.getpid(), 0))
