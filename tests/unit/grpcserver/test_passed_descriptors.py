"""Descriptors that a peer passes are closed elsewhere, where the listener cannot refuse them."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import resource
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.grpcserver.ancillary import Closer, PassedDescriptorsError, readable

from tests.support import http2
from tests.support.grpcserver.policy import OpenPolicy
from tests.support.grpcserver.raw import RawClient, serving
from tests.support.processes import open_descriptors

LINGER_SECONDS = 60


def lingering() -> tuple[socket.socket, socket.socket]:
    """Return a TCP connection with unsent data whose close blocks (SO_LINGER, socket(7))."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
    return client, accepted


def pass_lingering(sender: socket.socket, data: bytes) -> socket.socket:
    """Pass the only reference to a socket that lingers; return its other end."""
    client, other = lingering()
    sender.sendmsg(
        [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))]
    )
    client.close()  # not the last reference, and so at once
    return other


async def settled(count: int) -> None:
    async with asyncio.timeout(20):
        while open_descriptors() > count:  # noqa: ASYNC110 - it is the thing under test
            await asyncio.sleep(0.01)


async def test_calls_are_answered_as_where_descriptors_are_refused() -> None:
    async with serving(closer=Closer()) as bench:
        client = await bench.connect()
        for stream in (1, 3, 5):
            await client.lives(stream)


async def test_a_lingering_socket_that_is_passed_early_delays_no_call() -> None:
    async with serving(closer=Closer()) as bench:
        before = open_descriptors()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        other = pass_lingering(ours, http2.PREFACE)
        began = time.monotonic()
        bench.server.serve(theirs, None)
        ours.close()
        client = await bench.connect()
        await client.lives()
        client.writer.close()
        await settled(before + 1)
        other.close()
        assert time.monotonic() - began < LINGER_SECONDS / 2


async def test_a_lingering_socket_passed_later_ends_its_connection() -> None:
    async with serving(closer=Closer()) as bench:
        before = open_descriptors()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        bench.server.serve(theirs, None)
        hostile = RawClient(*await asyncio.open_connection(sock=ours))
        hostile.hello()
        await hostile.lives(1)
        began = time.monotonic()
        sender = ours.dup()
        other = pass_lingering(sender, b"\0")
        sender.close()
        await hostile.ends()
        client = await bench.connect()
        await client.lives()
        client.writer.close()
        hostile.writer.close()
        await settled(before + 1)
        other.close()
        assert time.monotonic() - began < LINGER_SECONDS / 2


async def test_a_lingering_socket_in_a_passed_socket_delays_no_other() -> None:
    async with serving(closer=Closer()) as bench:
        before = open_descriptors()
        others = []
        began = time.monotonic()
        for _ in range(3):
            outer, inner = socket.socketpair()
            others.append(pass_lingering(outer, b"x"))
            outer.close()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            passed = array.array("i", [inner.fileno()])
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
            inner.close()
            bench.server.serve(theirs, None)
            ours.close()
        await settled(before + len(others))
        for other in others:
            other.close()
        assert time.monotonic() - began < LINGER_SECONDS / 2


def test_unread_passed_descriptors_are_released_by_a_thread() -> None:
    before = open_descriptors()
    ours, theirs = socket.socketpair()
    ours.send(b"some data before")
    other = pass_lingering(ours, b"x")
    pipe = os.pipe()
    ours.sendmsg([b"y"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipe))])
    for one in pipe:
        os.close(one)
    began = time.monotonic()
    Closer().release(theirs, lambda: None)
    theirs.close()
    assert time.monotonic() - began < LINGER_SECONDS / 2
    ours.close()
    other.close()
    while open_descriptors() > before:
        assert time.monotonic() - began < LINGER_SECONDS / 2
        time.sleep(0.01)


class Counting(OpenPolicy):
    """A policy that notes the peers of connections that have ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def closed(self, peer: object, calls: int) -> None:
        self.ended.append(peer)


async def test_a_connection_counts_until_its_descriptors_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, closer, may_close = Counting(), Closer(), threading.Event()
    close = socket.socket.close

    def slow_close(self: socket.socket) -> None:
        if threading.current_thread().name == "closer":
            may_close.wait()
        close(self)

    monkeypatch.setattr(socket.socket, "close", slow_close)
    async with serving(policy=policy, closer=closer) as bench:
        try:
            for peer, data in (("hostile", b"x"), ("other", b"")):
                ours, theirs = socket.socketpair()
                theirs.setblocking(False)
                if data:
                    passed = array.array("i", [ours.fileno()])
                    ours.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
                bench.server.serve(theirs, peer)
                close(ours)
            async with asyncio.timeout(20):
                while policy.ended != ["other"]:  # noqa: ASYNC110 - it is the thing under test
                    await asyncio.sleep(0.01)
            assert not bench.server.connections
            assert closer.waiting == 1
        finally:
            may_close.set()
        async with asyncio.timeout(20):
            while policy.ended != ["other", "hostile"]:  # noqa: ASYNC110 - as well
                await asyncio.sleep(0.01)
        assert closer.waiting == 0


_FLOCK = struct.Struct("hhqqi")


def is_locked(path: Path) -> bool:
    """Return whether a process has a lock of fcntl(2) on a file, this one or another."""
    with path.open("rb+") as other:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = fcntl.fcntl(other, fcntl.F_OFD_GETLK, asked)
        kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def test_a_peek_at_the_input_installs_no_descriptor(
    tmp_path: Path,
) -> None:
    # close(2) of any descriptor of a file ends the process's locks on it, and waits for the file
    # system of some (FUSE, NFS): the lock shows whether there was a close.
    path = tmp_path / "locked"
    path.touch()
    ours, theirs = socket.socketpair()
    with path.open("rb+") as locked, ours, theirs:
        fcntl.lockf(locked, fcntl.LOCK_EX)
        passed = array.array("i", [locked.fileno()])
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        with pytest.raises(PassedDescriptorsError):
            readable(theirs, memoryview(bytearray(16)))
        assert is_locked(path)


def test_a_peer_adds_nothing_to_a_released_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"asked")
        theirs.send(b"answer")
        Closer().release(theirs, lambda: None)
        with pytest.raises(BrokenPipeError):
            ours.send(b"more, for as long as the loop reads")
        assert ours.recv(16) == b"answer"


async def test_a_connection_with_descriptors_ends_where_none_are_free() -> None:
    async with serving(closer=Closer()) as bench:
        client = await bench.connect()
        await client.lives()
        sock = client.writer.get_extra_info("socket")
        sender = socket.socket(fileno=os.dup(sock.fileno()))
        with sender:
            lowest_free = os.dup(sender.fileno())
            os.close(lowest_free)
            passed = array.array("i", [sender.fileno()])
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                sender.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
                async with asyncio.timeout(5):
                    while bench.server.connections:  # noqa: ASYNC110 - the thing under test
                        await asyncio.sleep(0.001)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
