"""A dump that changes while it is made is made again, or said so; a cut one is refused."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.links import read_links
from netutil.agent.facts.rtnetlink import Message, dump
from netutil.agent.identity.pidfd import pin_pid

from tests.support.namespaces import Namespace, network_namespace

RTM_GETLINK, RTM_NEWLINK, DONE = 18, 16, 3
MULTI, INTERRUPTED = 0x2, 0x10


def datagram(sequence: int, *messages: tuple[int, int, bytes]) -> bytes:
    """Messages of (type, flags, body) as the kernel puts them into one datagram."""
    return b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, MULTI | flags, sequence, 0) + body
        for kind, flags, body in messages
    )


class FromKernel(socket.socket):
    """A socket of which all that it receives has the kernel's address of netlink."""

    def recvmsg(self, *arguments: int) -> tuple[bytes, list[Any], int, tuple[int, int]]:
        block, ancillary, flags, _ = super().recvmsg(*arguments)
        return block, ancillary, flags, (0, 0)


@contextmanager
def kernel(*dumps: tuple[tuple[int, int, bytes], ...]) -> Iterator[socket.socket]:
    """Answers each request with the next of the dumps, and all later ones with the last."""
    end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near = FromKernel(fileno=end.detach())
    near.settimeout(30)

    def answer() -> None:
        asked = 0
        while request := far.recv(4096):
            (sequence,) = struct.unpack_from("=I", request, 8)
            far.send(datagram(sequence, *dumps[min(asked, len(dumps) - 1)]))
            asked += 1

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield near
    finally:
        near.close()
        thread.join()
        far.close()


END = (DONE, 0, bytes(4))
WHOLE = ((RTM_NEWLINK, 0, b"lo  "), (RTM_NEWLINK, 0, b"eth0"), END)
IN_THE_MIDDLE = ((RTM_NEWLINK, 0, b"lo  "), (RTM_NEWLINK, INTERRUPTED, b"eth1"), END)
AT_THE_END = ((RTM_NEWLINK, 0, b"lo  "), (DONE, INTERRUPTED, bytes(4)))


@pytest.mark.parametrize("interrupted", [IN_THE_MIDDLE, AT_THE_END])
def test_a_dump_that_was_interrupted_is_made_again(
    interrupted: tuple[tuple[int, int, bytes], ...],
) -> None:
    with kernel(interrupted, interrupted, WHOLE) as connection:
        found = dump(connection, RTM_GETLINK, b"")
    assert [message.body for message in found] == [b"lo  ", b"eth0"]


def test_a_dump_that_changes_at_each_read_is_an_error() -> None:
    with kernel(IN_THE_MIDDLE) as connection, pytest.raises(FailedPrecondition) as refused:
        dump(connection, RTM_GETLINK, b"")
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_CHANGING
    assert refused.value.advice
    assert refused.value.read == "rtnetlink in the caller's network namespace"


LONG = ((RTM_NEWLINK, 0, bytes(100_000)), END)


def test_a_datagram_that_was_cut_is_not_taken_for_a_whole_one() -> None:
    with kernel(LONG) as connection, pytest.raises(ValueError, match="more than 65536 bytes"):
        dump(connection, RTM_GETLINK, b"")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    with network_namespace() as made:
        yield made


@contextmanager
def links_that_come_and_go(namespace: Namespace) -> Iterator[None]:
    lines = [f"link add brief{n} type bridge\nlink delete brief{n}\n" for n in range(50)]
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            namespace.batch(*lines)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.root
def test_links_that_stay_are_listed_once_while_others_change(namespace: Namespace) -> None:
    stay = [f"stay{n}" for n in range(60)]
    namespace.batch(*(f"link add {name} type bridge\n" for name in stay))
    whole = 0
    with links_that_come_and_go(namespace):
        for _ in range(60):
            try:
                links = read_links(namespace.directory)
            except FailedPrecondition as error:
                assert error.reason is Reason.NETWORK_NAMESPACE_CHANGING
                continue
            whole += 1
            assert [one.name for one in links if one.name.startswith("stay")] == stay
    assert whole


@pytest.mark.root
async def test_endless_link_changes_are_unknown_the_rest_answered(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(*_: object) -> tuple[Message, ...]:
        with kernel(IN_THE_MIDDLE) as connection:
            return dump(connection, RTM_GETLINK, b"")

    monkeypatch.setattr("netutil.agent.facts.links.dump", changing)
    cache, pin = NetworkCache(ReadPool().run), pin_pid(namespace.pid)
    found = await LiveNetworks(cache, ()).links("pod", pin, pin)
    assert (found.host_network, found.links) == (False, None)
    assert found.error is not None
    assert found.error.reason is Reason.NETWORK_NAMESPACE_CHANGING
    cache.close()
    pin.close()
