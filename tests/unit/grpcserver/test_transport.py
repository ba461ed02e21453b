"""The transport of one socket: what it reads, writes and reports, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import AsyncIterator

import pytest
from netutil.agent.grpcserver.poller import Poller
from netutil.agent.grpcserver.transport import SocketTransport

_LARGE = bytes(range(256)) * 8192
_SECONDS = 20.0


class Recorder:
    """The reports of a transport, in order."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.buffer = memoryview(bytearray(4))
        self.failure: Exception | None = None
        self.no_buffer: OSError | None = None

    def get_buffer(self) -> memoryview:
        if self.no_buffer is not None:
            raise self.no_buffer
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(bytes(self.buffer[:size]))

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def wrote(self, seconds: float) -> None:
        assert seconds >= 0

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self) -> None:
        self.events.append("lost")


class Pair:
    """A transport with its recorder, and the peer's socket."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.peer, self.socket = socket.socketpair()
        self.peer.setblocking(False)
        self.socket.setblocking(False)
        self.recorder = Recorder()
        self.poller = Poller(self.loop)
        self.transport = SocketTransport(self.loop, self.poller, self.socket, self.recorder)

    async def until(self, *events: object) -> None:
        async with asyncio.timeout(_SECONDS):
            while self.recorder.events != list(events):  # noqa: ASYNC110 - it is the thing under test
                await asyncio.sleep(0.001)

    async def received(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(_SECONDS):
            while len(data) < size:
                data += await self.loop.sock_recv(self.peer, 1 << 20)
        return data


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    one = Pair()
    yield one
    one.transport.abort()
    await asyncio.sleep(0)
    one.poller.close()
    one.peer.close()


async def test_nothing_is_read_before_it_is_asked_for(pair: Pair) -> None:
    pair.peer.send(b"abc")
    await asyncio.sleep(0.01)
    assert pair.recorder.events == []
    pair.transport.read()
    assert pair.recorder.events == [b"abc"]


async def test_a_read_of_nothing_reports_nothing(pair: Pair) -> None:
    pair.transport.read()
    assert pair.recorder.events == []
    assert not pair.transport.is_closing()


async def test_input_is_read_in_order_once_reading_resumes(pair: Pair) -> None:
    pair.transport.resume_reading()
    assert pair.transport.is_reading()
    pair.peer.send(b"abcdefgh")
    await pair.until(b"abcd", b"efgh")


async def test_a_paused_transport_reads_nothing(pair: Pair) -> None:
    pair.transport.resume_reading()
    pair.transport.pause_reading()
    assert not pair.transport.is_reading()
    pair.peer.send(b"abc")
    await asyncio.sleep(0.01)
    assert pair.recorder.events == []
    pair.transport.resume_reading()
    await pair.until(b"abc")


async def test_the_end_of_input_is_reported_once_and_output_still_sent(
    pair: Pair,
) -> None:
    pair.transport.resume_reading()
    pair.peer.shutdown(socket.SHUT_WR)
    await pair.until("eof")
    pair.transport.resume_reading()
    await asyncio.sleep(0.01)
    assert pair.recorder.events == ["eof"]
    assert not pair.transport.is_reading()
    pair.transport.write(b"answer")
    assert await pair.received(6) == b"answer"


async def test_a_small_write_leaves_at_once(pair: Pair) -> None:
    pair.transport.write(b"answer")
    assert pair.peer.recv(10) == b"answer"
    assert pair.transport.get_write_buffer_size() == 0
    assert pair.recorder.events == []


async def test_bytes_that_the_kernel_refuses_are_sent_later_in_order(pair: Pair) -> None:
    pair.transport.write(_LARGE)
    assert 0 < pair.transport.get_write_buffer_size() < len(_LARGE)
    pair.transport.write(b"end")
    assert pair.recorder.events == ["pause"]
    assert await pair.received(len(_LARGE) + 3) == _LARGE + b"end"
    await pair.until("pause", "resume")
    assert pair.transport.get_write_buffer_size() == 0


async def test_a_close_waits_until_all_is_sent(pair: Pair) -> None:
    pair.transport.resume_reading()
    pair.transport.write(_LARGE)
    pair.transport.close()
    pair.transport.write(b"too late")
    pair.peer.send(b"not read")
    assert pair.transport.is_closing() and not pair.transport.is_reading()
    await asyncio.sleep(0.01)
    assert pair.recorder.events == ["pause"]
    assert await pair.received(len(_LARGE)) == _LARGE
    await pair.until("pause", "lost")
    assert pair.socket.fileno() < 0


async def test_an_abort_drops_what_is_not_sent(pair: Pair) -> None:
    pair.transport.write(_LARGE)
    pair.transport.close()
    pair.transport.abort()
    pair.transport.abort()
    assert pair.recorder.events == ["pause"], "the end is reported by the loop"
    await pair.until("pause", "lost")
    assert pair.socket.fileno() < 0
    assert len(await pair.received(1)) < len(_LARGE)


async def test_the_end_is_reported_once(pair: Pair) -> None:
    pair.transport.close()
    pair.transport.close()
    pair.transport.abort()
    pair.transport.read()
    pair.transport.resume_reading()
    await asyncio.sleep(0.01)
    assert pair.recorder.events == ["lost"]


async def test_a_peer_that_has_closed_ends_a_write(pair: Pair) -> None:
    pair.peer.close()
    pair.transport.write(b"answer")
    await pair.until("lost")


async def test_a_peer_that_closes_ends_a_write_that_waits(pair: Pair) -> None:
    pair.transport.write(_LARGE)
    pair.peer.close()
    await pair.until("pause", "lost")


async def test_a_peer_that_closes_before_reading_ends_the_connection(pair: Pair) -> None:
    """recv(2) gets ECONNRESET (unix_release_sock, net/unix/af_unix.c)."""
    pair.transport.resume_reading()
    pair.transport.write(b"unread")
    pair.peer.close()
    await pair.until("lost")


async def test_an_oserror_of_the_receiver_ends_the_connection(pair: Pair) -> None:
    pair.recorder.no_buffer = ConnectionAbortedError()
    pair.transport.read()
    await pair.until("lost")


async def test_an_error_of_the_receiver_ends_the_connection(pair: Pair) -> None:
    pair.recorder.failure = ValueError("a bug")
    pair.peer.send(b"abc")
    with pytest.raises(ValueError, match="a bug"):
        pair.transport.read()
    await pair.until("lost")


@pytest.mark.parametrize("what", ["read", "write", "resume"])
async def test_a_socket_that_cannot_be_watched_is_closed(
    what: str, pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        if what == "resume":
            pair.transport.pause_reading()
        patch.setattr(pair.poller, "modify" if what == "resume" else "add", fail)
        if what == "write":
            pair.transport.write(_LARGE)
        else:
            pair.transport.resume_reading()
    await pair.until("lost")
    assert "No space left on device" in caplog.text


async def test_a_closed_peer_ends_a_paused_transport(pair: Pair) -> None:
    pair.transport.pause_reading()
    pair.peer.send(b"abc")
    pair.peer.close()
    await pair.until("lost")


async def test_a_closed_peer_ends_a_transport_that_closes(pair: Pair) -> None:
    pair.transport.write(_LARGE)
    pair.transport.close()
    pair.peer.close()
    await pair.until("pause", "lost")


async def test_a_peer_that_reads_late_gets_all_after_the_end_of_input(pair: Pair) -> None:
    pair.transport.resume_reading()
    pair.peer.shutdown(socket.SHUT_WR)
    await pair.until("eof")
    pair.transport.write(_LARGE)
    pair.transport.close()
    assert await pair.received(len(_LARGE)) == _LARGE
    await pair.until("eof", "pause", "lost")


async def test_a_lost_connection_leaves_no_garbage_to_collect() -> None:
    one = Pair()
    one.transport.resume_reading()
    one.transport.write(_LARGE)
    recorder = weakref.ref(one.recorder)
    peer, transport = one.peer, one.transport
    gc.disable()
    try:
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del one
        assert recorder() is None
    finally:
        gc.enable()
    peer.close()
