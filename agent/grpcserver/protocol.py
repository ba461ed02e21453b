"""HTTP/2 of one connection on an asyncio transport.

All output of one turn of the loop leaves in one write. A peer that does not read is not read from.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any, cast

from netutil.agent.grpcserver.call import Call, CallHead, http_error, parse_head
from netutil.agent.grpcserver.config import ServerConfig
from netutil.agent.grpcserver.headers import Request
from netutil.agent.grpcserver.http2 import Http2Connection, Stream

if TYPE_CHECKING:
    from netutil.agent.grpcserver.server import Server

READ_BYTES = 16_384
_MAX_UNSENT_BYTES = 65_536
_CLOSE_SECONDS = 5.0
_HANG_UP_SECONDS = 0.25


class Connection(asyncio.BufferedProtocol):
    """One accepted connection. `peer` is what the owner of the server gave for it."""

    def __init__(self, server: Server, peer: Any) -> None:
        self.peer = peer
        self.loop = server.loop
        self.config: ServerConfig = server.config
        self.http2 = Http2Connection(server.config, self)
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._ready: list[Call] = []
        self._held_bytes = 0
        self._starved: dict[Call, None] = {}
        self._receiving = False
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: asyncio.TimerHandle | None = None
        self._shutdown_ping: bytes | None = None
        self._closing = False

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send SETTINGS, before the client's preface is read."""
        # A transport of uvloop is no subclass of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        self._timer = self.loop.call_later(self.config.preface_timeout, self._preface_late)
        self._server.opened(self)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the server's buffer: what is read is taken from it at once."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, run what is ready, and send what came of it."""
        http2 = self.http2
        http2.now = self.loop.time()
        self._receiving = True
        http2.receive(bytes(self._server.buffer[:nbytes]))
        if self._timer is not None and http2.is_open:
            self._timer.cancel()
            self._timer = None
        while self._ready:
            ready, self._ready = self._ready, []
            for call in ready:
                call.start()
        self._receiving = False
        self.flush()
        if self._server.policy is not None and http2.cost:
            cost, http2.cost = http2.cost, 0
            seconds = self._server.policy.charge(self, cost)
            if seconds > 0 and not self._closing:
                self.stop_reading(seconds)

    def eof_received(self) -> bool:
        """The peer sends no more: answer what is open, then close."""
        if self._has_hung_up():
            return False
        self.http2.finish()
        self.flush()
        if self._closing:
            return False
        self._watch_half_closed()
        return True

    def _has_hung_up(self) -> bool:
        """Return whether the peer has closed its socket, and not only its sending half."""
        connection = self._transport.get_extra_info("socket") if self._transport else None
        if connection is None or connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(connection.fileno(), 0)
        return bool(poll.poll(0))

    def _watch_half_closed(self) -> None:
        """Look now and then: nothing tells of the end of a connection that is not read from."""
        if self._closing or self._transport is None:
            return
        if self._has_hung_up():
            self._transport.abort()
        else:
            self.loop.call_later(_HANG_UP_SECONDS, self._watch_half_closed)

    def pause_writing(self) -> None:
        """The peer does not read: neither is it read from, and data stays in its streams."""
        self.http2.paused = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.http2.resume()
        self._read_or_not()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        self._closing = True
        for timer in (self._timer, self._stopped):
            if timer is not None:
                timer.cancel()
        self.http2.close_streams()
        self._server.closed(self)

    # Reading

    def stop_reading(self, seconds: float) -> None:
        """Read nothing of the peer for a time."""
        if self._stopped is not None:
            self._stopped.cancel()
        self._stopped = self.loop.call_later(seconds, self._go_on_reading)
        self._read_or_not()

    def _go_on_reading(self) -> None:
        self._stopped = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.http2.paused or self._stopped is not None:
            transport.pause_reading()
        elif not transport.is_reading():
            transport.resume_reading()

    # Writing

    def flush_soon(self) -> None:
        """Send what is there at the end of this turn."""
        if not (self._receiving or self._flushing):
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is there, in one write; close what is to be closed."""
        self._flushing = False
        transport, out = self._transport, self.http2.out
        if transport is None or transport.is_closing():
            out.clear()
            return
        if out:
            transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        if self.http2.closing and not self._closing:
            self._closing = True
            transport.close()
            if transport.get_write_buffer_size():
                self.loop.call_later(_CLOSE_SECONDS, transport.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _preface_late(self) -> None:
        self._timer = None
        self.abort()

    # Shutting down

    def shut_down(self) -> None:
        """Say that no new calls are to come, and close once those that are open have ended.

        In two steps (gRFC A9): calls that are on their way when the peer hears of it are served.
        """
        if self._shutdown_ping is not None or self._closing:
            return
        self._shutdown_ping = b"shutdown"
        self.http2.shut_down()
        self.http2.ping(self._shutdown_ping)
        self.loop.call_later(self.config.graceful_ping_timeout, self._last_goaway)
        self.flush()

    def _last_goaway(self) -> None:
        if self._shutdown_ping and not self._closing:
            self._shutdown_ping = b""
            self.http2.shut_down(self.http2.last_stream_id)
            self.flush_soon()

    # Events of http2

    def on_request(self, stream: Stream, request: Request) -> None:
        """Make a call of a request, or say why it is none."""
        found = request.notes.get("head")
        if found is None:
            found = request.notes["head"] = parse_head(request, self._server.find)
        assert isinstance(found, CallHead)  # noqa: S101
        if found.http_status:
            self.http2.send_trailers(stream, http_error(found.http_status))
            return
        call = Call(self, stream, request, found)
        stream.call = call
        status = found.failure
        policy = self._server.policy
        if policy is not None:
            status = policy.admit(call) or status
            call.is_admitted = True
        if status is not None:
            call.end(status)
        elif found.method is not None and found.method.request_streaming:
            self._ready.append(call)

    def on_data(self, stream: Stream, data: memoryview) -> None:
        """Take a part of a request's messages."""
        if stream.call is None:
            self.http2.consumed(None, len(data))
        else:
            stream.call.receive(data)

    def on_end(self, stream: Stream) -> None:
        """Note that a request has ended."""
        if stream.call is not None:
            stream.call.receive_end()

    def on_reset(self, stream: Stream) -> None:
        """Cancel a call."""
        if stream.call is not None:
            stream.call.cancel()

    def on_writable(self, stream: Stream) -> None:
        """Let a call write again."""
        if stream.call is not None:
            stream.call.writable()

    def on_ping_ack(self, opaque: bytes) -> None:
        """Go on with the second step of shutting down."""
        if opaque == self._shutdown_ping:
            self._last_goaway()

    # For calls

    def make_ready(self, call: Call) -> None:
        """Start a call at the end of this read."""
        self._ready.append(call)

    def took(self, stream: Stream, size: int) -> None:
        """A handler has taken a message."""
        self.http2.consumed(stream, size)
        self.flush_soon()

    def reserve(self, call: Call) -> None:
        """Give a call room for the rest of its message once the connection holds little enough."""
        if self._held_bytes <= self.config.max_buffered_request_bytes:
            self._held_bytes += call.credit()
        else:
            self._starved[call] = None

    def release(self, size: int) -> None:
        """A part of a message is not held any more."""
        self._held_bytes -= size
        while self._starved and self._held_bytes <= self.config.max_buffered_request_bytes:
            call = next(iter(self._starved))
            del self._starved[call]
            self._held_bytes += call.credit()

    def call_finished(self, call: Call) -> None:
        """A call's handler has ended."""
        self._starved.pop(call, None)
        policy = self._server.policy
        if policy is not None and call.is_admitted:
            call.is_admitted = False
            policy.finished(call)
