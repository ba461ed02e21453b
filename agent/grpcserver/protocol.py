"""HTTP/2 of one connection on its socket.

All output of one iteration of the loop leaves in one write, but for what a handler writes that had
to wait for its step. Nothing is read from a peer that does not read.
What was read is processed in small portions, each when the server's policy lets it. A response of
more than 64 KiB leaves in such portions too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from netutil.agent.grpcserver.ancillary import readable
from netutil.agent.grpcserver.call import Call, CallHead, Status, http_error, parse_head
from netutil.agent.grpcserver.config import ServerConfig
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import Request
from netutil.agent.grpcserver.http2 import Http2Connection, Stream
from netutil.agent.grpcserver.transport import SocketTransport

if TYPE_CHECKING:
    from netutil.agent.grpcserver.server import Server

READ_BYTES = 16_384
_PORTION_COST = 24
"""What is processed at once of one connection: about three requests."""
_PORTION_SECONDS = 0.0001
"""No other call begins in a portion that has taken this long: a call may take as long as three."""
_CHARGED_BYTES = 8192
"""Of output: from here on its write takes long enough to be charged. A portion of small responses
has less."""
_CLOSE_SECONDS = 5.0


class Connection:
    """One accepted connection. `peer` is what the owner of the server gave for it."""

    def __init__(
        self,
        server: Server,
        peer: Any,
        accepted: socket.socket,
        max_age: float | None,
    ) -> None:
        """For `max_age` see `Server.serve`."""
        self.peer = peer
        self._accepted = accepted
        self.loop = server.loop
        self.config: ServerConfig = server.config
        self.http2 = Http2Connection(server.config, self, server.first_blocks)
        self._server = server
        self._transport: SocketTransport | None = None
        self.ready: list[Call] = []
        """Calls that start at the end of this portion, or in the next one if it takes too long."""
        self._held_bytes = 0
        self._starved: dict[Call, None] = {}
        self._input = b""
        self._has_input = False
        """Whether something is to be processed: frames, or calls that are ready."""
        self._has_frames = False
        self._is_queued = False
        self.is_processing = False
        """What calls write now leaves at the end of the portion."""
        self._flushing = False
        self._is_write_queued = False
        self._unsent: list[tuple[int, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._max_age = max_age
        self._age_timer: asyncio.TimerHandle | None = None
        self._shutdown_ping: bytes | None = None
        self._closing = False
        self.calls = 0
        """Calls that the policy admitted."""

    def open(self) -> None:
        """Send SETTINGS, and process what has come.

        A client sends its preface with its first request, at once after connect(2): mostly both
        have come, and the answer leaves with our SETTINGS in one write.
        """
        # What the kernel does not take at once waits in the streams, where it is counted.
        self._transport = transport = SocketTransport(
            self.loop, self._server.poller, self._accepted, self
        )
        if self._max_age is not None:
            self._age_timer = self.loop.call_later(self._max_age, self.run, self._end_of_age)
        self._server.opened(self)
        transport.read()
        if transport.is_closing():
            return
        if not self.http2.is_open:
            self._timer = self.loop.call_later(self.config.timeouts.preface, self._preface_late)
        if not transport.is_reading():
            self._read_or_not()
        if self.http2.out:
            self.flush()

    # Events of the transport

    def get_buffer(self) -> memoryview:
        """Return the server's buffer: what is read is taken from it at once.

        Raises `PassedDescriptorsError`, which ends the connection.
        """
        buffer = self._server.buffer
        if self._server.closer is None:
            return buffer
        try:
            return buffer[: max(1, readable(self._accepted, buffer))]
        except BlockingIOError:
            return buffer

    def buffer_updated(self, size: int) -> None:
        """Process what was read, now or when the policy lets it, and send what came of it."""
        self._input = bytes(self._server.buffer[:size])
        self._has_input = True
        self._process_allowed()

    def advance(self) -> None:
        """Process a portion of what was read, and more if the policy lets it.

        An unexpected error ends the connection, as it does while a transport reads.
        """
        self._is_queued = False
        if not self._has_input:
            return
        try:
            self._process()
            self._process_allowed()
        except Exception:
            self.abort()
            raise

    def _process_allowed(self) -> None:
        policy = self._server.policy
        while self._has_input:
            if policy is not None and not policy.may_process(self):
                self._is_queued = True
                policy.wait(self, self.advance)
                break
            self._process()
        transport = self._transport
        if self._is_queued or self.http2.paused or not (transport and transport.is_reading()):
            self._read_or_not()
        self.flush()

    def _process(self) -> None:
        began = perf_counter()
        http2, policy = self.http2, self._server.policy
        http2.now = self.loop.time()
        cost = http2.cost
        self.is_processing = True
        is_read = not self.ready
        if is_read:
            data, self._input = self._input, b""
            self._has_frames = http2.receive(data, _PORTION_COST)
        if self._timer is not None and http2.is_open:
            self._timer.cancel()
            self._timer = None
        while self.ready:
            self.ready.pop(0).start()
            if perf_counter() - began >= _PORTION_SECONDS:
                break
        self._has_input = self._has_frames or bool(self.ready)
        self.is_processing = False
        if policy is not None:
            overhead, http2.overhead = http2.overhead, 0
            # A read that completes no frame takes as long as one that does.
            if is_read and http2.cost == cost:
                overhead += 1
            policy.processed(self, perf_counter() - began, overhead)

    def rejected(self, call: Call, status: Status) -> Status:
        """Return how a call ends that the server rejects by itself."""
        policy = self._server.policy
        return status if policy is None else policy.rejected(call, status)

    # The steps of handlers after their first wait

    def may_resume(self) -> bool:
        """Return whether a handler may go on now."""
        policy = self._server.policy
        return policy is None or policy.may_resume(self)

    def wait(self, work: Callable[[], None]) -> None:
        """Call `work` in the order of the policy."""
        assert self._server.policy is not None  # noqa: S101 - without one, handlers go on at once
        self._server.policy.wait(self, work)

    def forget(self, work: Callable[[], None]) -> None:
        """Call `work` no more."""
        assert self._server.policy is not None  # noqa: S101
        self._server.policy.forget(self, work)

    def resumed(self, seconds: float) -> None:
        """A handler has used so much of the loop's time after its first wait."""
        if self._server.policy is not None:
            self._server.policy.resumed(self, seconds)

    def turn_ended(self) -> None:
        """Send what a handler has written in this turn, and note the time as the handler's."""
        began = perf_counter()
        self._flush(is_charged=False)
        self.resumed(perf_counter() - began)

    def eof_received(self) -> None:
        """The peer sends no more: answer what is open, then close."""
        for stream in list(self.http2.streams.values()):
            if not stream.remote_closed and (stream.call is None or stream.call.awaits_request):
                self.http2.reset(stream, ErrorCode.CANCEL)
                self.on_reset(stream)
        self.http2.finish()
        self.flush()

    def pause_writing(self) -> None:
        """The peer does not read: neither is it read from, and data stays in its streams."""
        self.http2.paused = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """The peer reads again: more of what waits is sent when the policy lets it."""
        self.http2.paused = False
        self._read_or_not()
        policy = self._server.policy
        if self.http2.has_waiting and (policy is None or policy.may_process(self)):
            self._write_on()
        else:
            self.flush()
            if self.http2.has_waiting:
                self._write_later()

    def wrote(self, seconds: float) -> None:
        """Charge for the time of a write."""
        if self._server.policy is not None:
            self._server.policy.processed(self, seconds, 0)

    def _write_later(self) -> None:
        """Send more of what waits in the streams, in the order of the policy.

        Without one in the next iteration: a peer that reads fast would have the loop to itself.
        """
        if self._is_write_queued:
            return
        self._is_write_queued = True
        policy = self._server.policy
        if policy is None:
            self.loop.call_soon(self.run, self._write_on)
        else:
            policy.wait(self, self._write_in_order)

    def _write_in_order(self) -> None:
        self.run(self._write_on)

    def _write_on(self) -> None:
        self._is_write_queued = False
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return  # in the last case `resume_writing` follows
        began = perf_counter()
        self.http2.send_waiting()
        self._flush(is_charged=False)
        self.wrote(perf_counter() - began)

    def connection_lost(self) -> None:
        """End all calls."""
        self._closing = True
        self._has_input = False
        self.ready.clear()
        for timer in (self._timer, self._age_timer, self._linger):
            if timer is not None:
                timer.cancel()
        try:
            self.http2.close_streams()
        finally:  # A bug there is raised, and keeps nothing of the connection.
            self._call_sent()
            self._transport = None
            self._server.closed(self)
            self.http2.detach()
            # Last: the socket may be closed from here on.
            self._server.release(self._accepted, self.peer, self.calls)

    # Reading

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.http2.paused or self._is_queued:
            transport.pause_reading()
        elif not transport.is_reading():
            transport.resume_reading()

    # Writing

    def flush_soon(self) -> None:
        """Send what is there at the end of this iteration."""
        if not (self.is_processing or self._flushing):
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is there, in one write; close what is to be closed.

        An unexpected error is logged and ends the connection. The error is not raised: code that
        flushes many connections, or answers a call, goes on.
        """
        self._flush(is_charged=True)

    def _flush(self, *, is_charged: bool) -> None:
        self._flushing = False
        try:
            self._send(is_charged=is_charged)
        except Exception as error:  # noqa: BLE001 - a bug, whose traceback the loop's handler logs
            self.fail(error)

    def _send(self, *, is_charged: bool) -> None:
        transport, out = self._transport, self.http2.out
        if transport is None or transport.is_closing():
            out.clear()
            return
        if out:
            http2 = self.http2
            is_long = is_charged and http2.sent_bytes - http2.taken_bytes >= _CHARGED_BYTES
            began = perf_counter() if is_long else 0.0
            transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            has_waiting = http2.taken()
            if is_long:
                self.wrote(perf_counter() - began)
            if has_waiting:
                self._write_later()
        if self._unsent:
            self._call_sent()
        if self.http2.is_drained and self._linger is None and not self._closing:
            self._linger = self.loop.call_later(
                self.config.timeouts.linger, self.run, self._end_linger
            )
        if self.http2.closing and not out and not self._closing:
            self._closing = True
            transport.close()
            if transport.get_write_buffer_size():
                self.loop.call_later(_CLOSE_SECONDS, transport.abort)

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the kernel has all messages that have left their streams so far."""
        if self._transport is None:
            callback()
            return
        self._unsent.append((self.http2.sent_bytes, callback))
        self.flush_soon()

    def _call_sent(self) -> None:
        unsent = 0
        if self._transport is not None and not self._transport.is_closing():
            unsent = self._transport.get_write_buffer_size()
        sent = self.http2.sent_bytes - unsent
        while self._unsent and self._unsent[0][0] <= sent:
            callback = self._unsent.pop(0)[1]
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - the callbacks of other calls follow
                self.fail(error)

    def _end_of_age(self) -> None:
        self._age_timer = self.loop.call_later(_CLOSE_SECONDS, self.abort)
        self.shut_down()

    def _end_linger(self) -> None:
        self.http2.closing = True
        self.flush()

    def run(self, callback: Callable[[], None]) -> None:
        """Run what a timer calls; an unexpected error ends this connection alone."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - a bug, whose traceback the loop's handler logs
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End this connection alone for an unexpected error, whose traceback is logged."""
        self.abort()
        self.loop.call_exception_handler(
            {"message": "grpcserver: a connection failed", "exception": error}
        )

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
        self.loop.call_later(self.config.timeouts.graceful_ping, self.run, self._last_goaway)
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
        policy = self._server.policy
        refused = policy.admit(call) if policy is not None else None
        if refused is not None:
            call.end(refused)
            return
        call.is_admitted = policy is not None
        self.calls += 1
        if found.failure is not None:
            call.reject(found.failure)
        elif found.method is not None and found.method.request_streaming:
            self.ready.append(call)

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

    def on_closed(self, stream: Stream) -> None:
        """Note that a stream holds nothing any more."""
        if stream.call is not None:
            stream.call.stream_closed()

    def on_writable(self, stream: Stream) -> None:
        """Let a call write again."""
        if stream.call is not None:
            stream.call.writable()

    def on_ping_ack(self, opaque: bytes) -> None:
        """Go on with the second step of shutting down."""
        if opaque == self._shutdown_ping:
            self._last_goaway()

    # For calls

    def reserve(self, call: Call) -> None:
        """Open a call's window for its message once the connection holds little enough."""
        if self._held_bytes <= self.config.messages.max_buffered_request_bytes:
            self._held_bytes += call.credit()
        else:
            self._starved[call] = None

    def forget_call(self, call: Call) -> None:
        """A call takes no more messages."""
        self._starved.pop(call, None)

    def release(self, size: int) -> None:
        """A message is not held any more."""
        self._held_bytes -= size
        while self._starved and self._held_bytes <= self.config.messages.max_buffered_request_bytes:
            call = next(iter(self._starved))
            del self._starved[call]
            self._held_bytes += call.credit()

    def call_finished(self, call: Call) -> None:
        """A call's handler has ended, and its stream."""
        policy = self._server.policy
        if policy is not None and call.is_admitted:
            call.is_admitted = False
            policy.finished(call)
