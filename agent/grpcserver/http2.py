"""One HTTP/2 connection in the server's role (RFC 9113). Bytes in, bytes and events out; no I/O.

What a peer can make this hold is bounded: one header block, the messages of its streams up to the
receive windows, and answers up to its own windows. Whatever costs work is added to `cost`, in units
of about one frame, so that the caller can make the peer wait. The part of it that brings nothing is
added to `overhead`, of which each request allows for some.
"""

from __future__ import annotations

import functools
import math
import struct
from collections import OrderedDict
from typing import Any, ClassVar, Protocol

from netutil.agent.grpcserver import frames
from netutil.agent.grpcserver.config import ServerConfig
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import (
    BlockDecoder,
    BlockError,
    BlockTooCostlyError,
    FirstBlocks,
    Request,
)

_U32 = struct.Struct(">I")
_MAX_REMEMBERED_RESETS = 128
_MAX_CONTINUATIONS = 32
_WORK_PER_COST = 8
_BYTES_PER_COST = 1024
_MAX_OUT_BYTES = 65_536
"""Of messages in `out`, and one frame: more stays in the streams, where writers wait for it and it
is counted, until the transport has taken what is there."""
REQUEST_COST = 8
"""A request costs as much as eight frames that bring nothing."""
RESET_COST = 8
_OVERHEAD_PER_REQUEST = 6
"""Well-behaved clients send a WINDOW_UPDATE, a PING or two and their answers beside a call."""


class Events(Protocol):
    """Events of a connection. Called from within `receive`."""

    def on_request(self, stream: Stream, request: Request) -> None:
        """A request's headers are whole. `stream.remote_closed` says whether that is all of it."""

    def on_data(self, stream: Stream, data: memoryview) -> None:
        """Bytes of a request's body. `consumed` opens the window for as many again."""

    def on_end(self, stream: Stream) -> None:
        """The peer sends no more on the stream."""

    def on_reset(self, stream: Stream) -> None:
        """The stream has ended early: by the peer, by an error of the peer's, or with GOAWAY."""

    def on_closed(self, stream: Stream) -> None:
        """Nothing is sent on the stream any more, and none of its data is queued."""

    def on_writable(self, stream: Stream) -> None:
        """All that was queued on the stream has been sent, its trailers too if they were."""

    def on_ping_ack(self, opaque: bytes) -> None:
        """A PING was answered."""


class Stream:
    """One open stream. `call` belongs to the handler of its events."""

    __slots__ = (
        "call",
        "content_left",
        "ending",
        "id",
        "local_closed",
        "pending",
        "pending_bytes",
        "receive_window",
        "remote_closed",
        "send_window",
        "unreturned",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.receive_window = receive_window
        self.unreturned = 0
        self.remote_closed = False
        self.local_closed = False
        self.content_left: int | None = None
        self.pending: list[memoryview] = []
        self.pending_bytes = 0
        self.ending: bytes | None = None
        """The block of the trailers, once there is one, while data before it waits."""
        self.call: Any = None


class Http2Connection:
    """The state of one connection. What is to be sent is in `out`, in its order.

    The owner takes it from there and calls `taken`, and `send_waiting` while `has_waiting` is true.

    `closing` is set once the connection is to be closed as soon as `out` is sent.
    """

    __deletable__: ClassVar[list[str]] = ["_events"]
    """For mypyc: the attributes that a `del` may name."""

    def __init__(
        self, config: ServerConfig, events: Events, first_blocks: FirstBlocks | None = None
    ) -> None:
        """`first_blocks` is shared by connections with the same configuration."""
        self._config = config
        self._events = events
        self._decoder = BlockDecoder(
            config.headers.max_list_bytes, config.headers.max_block_bytes, first_blocks
        )
        self.out: list[bytes] = [
            _settings(
                config.streams.max_concurrent,
                config.headers.max_list_bytes,
                config.streams.window_bytes,
            )
        ]
        self.streams: dict[int, Stream] = {}
        self.closing = False
        self.is_drained = False
        """No stream is open, and none will be: the peer is to close."""
        self.cost = 0
        self.overhead = 0
        self.sent_bytes = 0
        """Bytes of messages that were put into `out` since the start."""
        self.taken_bytes = 0
        """How many of these bytes have been given to the transport."""
        self.is_open = False
        """The peer's preface and its first SETTINGS have come."""
        self.last_stream_id = 0
        self.now = 0.0
        """Set by the caller before `receive`: monotonic seconds, for the ping policy."""
        self._preface_left = frames.PREFACE
        self._rest = b""
        self._block: list[bytes] | None = None
        self._block_bytes = 0
        self._block_stream = (0, False)
        self._send_window = frames.DEFAULT_WINDOW
        self._initial_send_window = frames.DEFAULT_WINDOW
        self._receive_window = frames.DEFAULT_WINDOW
        self._unreturned = 0
        self._stream_window = frames.DEFAULT_WINDOW
        """Of streams that open: the default until the peer has acknowledged the SETTINGS."""
        self._held_bytes = 0
        """What is given back of the connection's window at that acknowledgement."""
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        """Streams with data to send, in their order, apart from those without a window."""
        # The first block says that this encoder uses no table, and so whatever size the peer
        # announces is kept (RFC 7541, 4.2).
        self._table_size_update = b"\x20"
        self._resets: OrderedDict[int, None] = OrderedDict()
        """Streams that were reset here, of which frames may still be on their way."""
        self._forgotten_up_to = 0
        self._stream_errors = 0
        self._refuse_above = frames.MAX_STREAM_ID
        self._goaway_received = False
        self._last_ping = -1e9
        self._ping_strikes = 0
        self.paused = False
        """While the transport takes no more, data stays in the streams' queues."""

    # Receiving

    def receive(self, data: bytes, max_cost: float = math.inf) -> bool:
        """Take bytes of the peer, in any pieces, up to about a cost.

        Return whether frames are left: then the next bytes may be none.
        """
        if self.closing:
            return False
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            at = self._take_preface(data) if self._preface_left else 0
            at, is_left = self._take_frames(data, at, self.cost + max_cost)
        except _ConnectionError as error:
            self._fail(error.code, error.why)
            return False
        self._rest = data[at:]
        return is_left

    def _take_preface(self, data: bytes) -> int:
        wanted = self._preface_left
        part = data[: len(wanted)]
        if part != wanted[: len(part)]:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
        self._preface_left = wanted[len(part) :]
        return len(part)

    def _take_frames(self, data: bytes, at: int, max_cost: float) -> tuple[int, bool]:
        """Take the frames that are whole; return where the next one begins, and if one may."""
        end = len(data)
        unpack, handlers = frames.unpack_header, _HANDLERS
        while end - at >= frames.HEADER_BYTES and not self.closing:
            if self.cost >= max_cost:
                return at, True
            upper, lower, kind, flags, stream_id = unpack(data, at)
            size = upper << 8 | lower
            if size > frames.MAX_FRAME_BYTES:
                code = ErrorCode.FRAME_SIZE_ERROR
                raise _ConnectionError(code, "a frame larger than was announced")
            begin = at + frames.HEADER_BYTES
            if end - begin < size:
                break
            at = begin + size
            self.cost += 1
            self.overhead += 1
            if self._block is not None or not self.is_open:
                self._ensure_expected(kind, flags)
            if kind < len(handlers):
                handlers[kind](self, flags, stream_id & frames.MAX_STREAM_ID, data[begin:at])
        return at, False

    def _ensure_expected(self, kind: int, flags: int) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
        if not self.is_open and (kind != frames.SETTINGS or flags & frames.ACK):
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def consumed(self, stream: Stream | None, size: int) -> None:
        """Open the window by `size` bytes of a request, that of the stream too if it is open."""
        self._unreturned += size
        if self._unreturned >= frames.DEFAULT_WINDOW // 2:
            self.out.append(frames.window_update(0, self._unreturned))
            self._receive_window += self._unreturned
            self._unreturned = 0
        if stream is not None and not stream.remote_closed:
            self.consumed_of_stream(stream, size)

    def consumed_of_stream(self, stream: Stream, size: int) -> None:
        """As `consumed`, for bytes that were held and so are given back to the connection."""
        stream.unreturned += size
        if stream.unreturned >= self._config.streams.window_bytes // 2:
            size, stream.unreturned = stream.unreturned, 0
            self.grant(stream, size)

    def hold(self, size: int) -> None:
        """Open the connection's window for bytes that are kept: their streams' windows bound
        them, and without it a message could not end while others are held.

        Not before the peer goes by these windows.
        """
        if self._stream_window == frames.DEFAULT_WINDOW != self._config.streams.window_bytes:
            self._held_bytes += size
        else:
            self.consumed(None, size)

    def release(self, size: int) -> None:
        """Open the window for bytes that were held and are not any more, where `hold` has not."""
        size = min(size, self._held_bytes)
        self._held_bytes -= size
        self.consumed(None, size)

    def open_window(self, stream: Stream) -> int:
        """Return how many bytes a peer that goes by our SETTINGS may still send on a stream."""
        return stream.receive_window - self._stream_window + self._config.streams.window_bytes

    def grant(self, stream: Stream, size: int) -> None:
        """Make the window of a stream larger, if it still takes data."""
        if size and not stream.remote_closed and stream.id in self.streams:
            self.out.append(frames.window_update(stream.id, size))
            stream.receive_window += size

    # Sending

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """Send the headers of a response. Nothing is sent on a stream that has ended."""
        if stream.local_closed:
            return
        self._append_headers(stream.id, block, end_stream=False)

    def send_data(self, stream: Stream, data: bytes) -> None:
        """Send data as far as the windows go; the rest waits, and `on_writable` follows."""
        if stream.local_closed:
            return
        stream.pending.append(memoryview(data))
        stream.pending_bytes += len(data)
        self._queue(stream)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """End a response, once its data is sent."""
        if stream.local_closed or stream.ending is not None:
            return
        stream.ending = block
        if stream.pending:
            return
        self._finish(stream)

    def send_unary(self, stream: Stream, head: bytes, message: bytes, trailers: bytes) -> None:
        """Send a whole response: blocks of its headers and trailers, and one prefixed message."""
        size = len(message)
        if (
            size > frames.MAX_FRAME_BYTES
            or size > self._send_window
            or size > stream.send_window
            or self.paused
            or self.sent_bytes - self.taken_bytes >= _MAX_OUT_BYTES
            or stream.local_closed
            or stream.pending
        ):
            self.send_headers(stream, head)
            self.send_data(stream, message)
            self.send_trailers(stream, trailers)
            return
        self._send_window -= size
        self.sent_bytes += size
        stream_id = stream.id
        if self._table_size_update:
            head, self._table_size_update = self._table_size_update + head, b""
        self.out.append(frames.whole_response(stream_id, head, message, trailers))
        self._ping_strikes = 0
        self._close_local(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream at once, by the server's wish."""
        if stream.id in self.streams:
            self._send_reset(stream.id, code)
            self._drop(stream)
            self._close_if_done()

    def ping(self, opaque: bytes) -> None:
        """Send PING with eight bytes."""
        self.out.append(frames.frame(frames.PING, 0, 0, opaque))

    def shut_down(self, last_stream_id: int | None = None) -> None:
        """Send GOAWAY: first with the highest stream, then with the last one that is served."""
        last = frames.MAX_STREAM_ID if last_stream_id is None else last_stream_id
        self._refuse_above = last
        self.out.append(frames.goaway(last, ErrorCode.NO_ERROR))
        if last_stream_id is not None:
            self._close_if_done()

    def finish(self) -> None:
        """The peer sends no more at all: close once its open calls are answered."""
        self._goaway_received = True
        self._close_if_done()

    def taken(self) -> bool:
        """Note that the transport has what was in `out`; return `has_waiting`."""
        self.taken_bytes = self.sent_bytes
        return bool(self._waiting) and self.has_waiting

    @property
    def has_waiting(self) -> bool:
        """Whether more data may be sent, once what is in `out` is taken."""
        return bool(self._waiting) and self._send_window > 0 and not self.paused

    def send_waiting(self) -> None:
        """Put into `out` what waits."""
        self._flush()

    def close_streams(self) -> None:
        """Drop all streams: the connection has ended."""
        self.closing = True
        for stream in list(self.streams.values()):
            self._drop(stream)
            self._events.on_reset(stream)

    def detach(self) -> None:
        """Drop the reference to the receiver of events, of a connection whose streams are closed.

        The two refer to each other: each connection would leave them to the garbage collector.
        """
        del self._events

    # Frames

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self.cost += size // _BYTES_PER_COST
        if size > self._receive_window:
            raise _ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "past the connection's window")
        self._receive_window -= size
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_closed:
            self._ensure_not_idle(stream_id)
            self._pass_over(stream, stream_id, size)
            return
        if size > stream.receive_window:
            self.consumed(None, size)
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        stream.receive_window -= size
        data = _without_padding(payload) if flags & frames.PADDED else memoryview(payload)
        if len(data) < size:
            self.consumed(stream, size - len(data))
        ends = bool(flags & frames.END_STREAM)
        if stream.content_left is not None:
            stream.content_left -= len(data)
            if stream.content_left < 0 or (ends and stream.content_left):
                self.consumed(None, len(data))
                self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)
                return
        stream.remote_closed = ends
        if data:
            self.overhead -= 1
            self._events.on_data(stream, data)
        if ends:
            self._ended_remotely(stream)

    def _pass_over(self, stream: Stream | None, stream_id: int, size: int) -> None:
        """Take data of a stream that takes none, and open the window again."""
        self.consumed(None, size)
        if stream is not None:
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
        elif not self._was_reset(stream_id):
            self._count_stream_error()
            self.out.append(frames.rst_stream(stream_id, ErrorCode.STREAM_CLOSED))

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream of the server's")
        data: bytes | memoryview = payload
        if flags & frames.PADDED:
            data = _without_padding(payload)
        depends_on_itself = False
        if flags & frames.PRIORITY_FLAG:
            if len(data) < 5:  # noqa: PLR2004 - RFC 9113, 6.2
                raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short")
            depends_on_itself = _depends_on(data) == stream_id
            data = data[5:]
        self._block_stream = (stream_id, bool(flags & frames.END_STREAM))
        if flags & frames.END_HEADERS:
            self._headers(bytes(data), depends_on_itself=depends_on_itself)
            return
        self._block, self._block_bytes = [bytes(data)], len(data)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or stream_id != self._block_stream[0]:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block.append(payload)
        self._block_bytes += len(payload)
        if (
            self._block_bytes > self._config.headers.max_block_bytes
            or len(self._block) > _MAX_CONTINUATIONS
        ):
            raise _ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "a header block too large")
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), None
            self._headers(block)

    def _headers(self, block: bytes, *, depends_on_itself: bool = False) -> None:
        stream_id, ends = self._block_stream
        stream = self.streams.get(stream_id)
        decoder = self._decoder
        work = decoder.work
        self.cost += len(block) // _BYTES_PER_COST
        try:
            if stream is not None or stream_id <= self.last_stream_id:
                self._trailers(stream, stream_id, block, ends=ends)
                return
            request = decoder.request(block)
        except BlockError as error:
            raise _ConnectionError(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        except BlockTooCostlyError as costly:
            raise _ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, str(costly)) from costly
        finally:
            decoded = (decoder.work - work) // _WORK_PER_COST
            self.cost += decoded
            self.overhead += decoded
        self.last_stream_id = stream_id
        self.cost += REQUEST_COST
        if stream_id > self._refuse_above:
            self._remember_reset(stream_id)  # after the last GOAWAY it is passed over
            return
        if len(self.streams) >= self._config.streams.max_concurrent:
            self._reset_unopened(stream_id, ErrorCode.REFUSED_STREAM)
            return
        wrong_length = ends and request.content_length
        if request.malformed or depends_on_itself or wrong_length:
            self._count_stream_error()
            self._reset_unopened(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        stream = Stream(stream_id, self._initial_send_window, self._stream_window)
        stream.content_left = request.content_length
        stream.remote_closed = ends
        self.streams[stream_id] = stream
        self.overhead -= _OVERHEAD_PER_REQUEST
        self._events.on_request(stream, request)
        if ends:
            self._ended_remotely(stream)

    def _trailers(self, stream: Stream | None, stream_id: int, block: bytes, *, ends: bool) -> None:
        well_formed = self._decoder.trailers(block)
        if stream is None:
            if self._was_reset(stream_id):
                return
            raise _ConnectionError(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        if stream.remote_closed:
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
        elif not ends or not well_formed or stream.content_left:
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.remote_closed = True
            self._ended_remotely(stream)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        wrong_size = len(payload) != 5  # noqa: PLR2004 - RFC 9113, 6.3
        if not wrong_size and _depends_on(payload) != stream_id:
            return
        code = ErrorCode.FRAME_SIZE_ERROR if wrong_size else ErrorCode.PROTOCOL_ERROR
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._stream_error(stream, code)
        elif stream_id > self.last_stream_id:
            raise _ConnectionError(code, "PRIORITY that is malformed")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != _U32.size:
            raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        self._ensure_not_idle(stream_id)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._count_reset()
            self._drop(stream)
            self._events.on_reset(stream)
            self._close_if_done()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with content")
            self._on_settings_acknowledged()
            return
        if len(payload) % 6:
            raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self.cost += len(payload) // 6
        self.overhead += len(payload) // 6
        initial_window = None
        for key, value in frames.parse_settings(payload):
            _check_setting(key, value)
            if key == frames.INITIAL_WINDOW_SIZE:
                initial_window = value
        self.is_open = True
        # First: the peer goes by its new settings once it has read this, not before.
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if initial_window is not None:
            self._set_initial_window(initial_window)

    def _on_settings_acknowledged(self) -> None:
        change = self._config.streams.window_bytes - self._stream_window
        if not change:
            return  # acknowledged before
        self._stream_window += change
        for stream in self.streams.values():
            stream.receive_window += change
        held, self._held_bytes = self._held_bytes, 0
        self.consumed(None, held)

    def _set_initial_window(self, value: int) -> None:
        change = value - self._initial_send_window
        self._initial_send_window = value
        self.cost += len(self.streams)
        self.overhead += len(self.streams)
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise _ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window too large")
            if stream.pending and stream.send_window > 0:
                self._waiting[stream] = None
        self._flush()

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE of a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:  # noqa: PLR2004 - RFC 9113, 6.7
            raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
        if flags & frames.ACK:
            self._events.on_ping_ack(payload)
            return
        # Before other output (RFC 9113, 6.7), but after our SETTINGS and earlier answers.
        out = self.out
        at = 1 if out and out[0][3] == frames.SETTINGS else 0
        while at < len(out) and out[at][3] == frames.PING:
            at += 1
        out.insert(at, frames.frame(frames.PING, frames.ACK, 0, payload))
        if self.now - self._last_ping < self._config.pings.min_interval:
            self._ping_strikes += 1
            if self._ping_strikes > self._config.pings.max_strikes:
                raise _ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last_ping = self.now

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:  # noqa: PLR2004 - RFC 9113, 6.8
            raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        self.finish()

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != _U32.size:
            raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        increment = _U32.unpack(payload)[0] & frames.MAX_WINDOW
        if not stream_id:
            if not increment:
                raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self._send_window += increment
            if self._send_window > frames.MAX_WINDOW:
                raise _ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "the window too large")
            self._flush()
            return
        self._ensure_not_idle(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if not increment:
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR)
        elif stream.pending:
            self._queue(stream)

    # State

    def _ended_remotely(self, stream: Stream) -> None:
        if stream.id not in self.streams:
            return
        self._events.on_end(stream)
        if stream.local_closed and stream.id in self.streams:
            del self.streams[stream.id]
            self._close_if_done()

    def _queue(self, stream: Stream) -> None:
        self._waiting[stream] = None
        self._flush()

    def _flush(self) -> None:
        """Send queued data in frames, stream after stream, as far as the windows go."""
        waiting = self._waiting
        end = self.taken_bytes + _MAX_OUT_BYTES
        while waiting and self._send_window > 0 and not self.paused and self.sent_bytes < end:
            stream, _ = waiting.popitem(last=False)
            if stream.send_window <= 0:
                continue
            size = min(frames.MAX_FRAME_BYTES, self._send_window, stream.send_window)
            part = stream.pending[0][:size]
            self._send_window -= len(part)
            stream.send_window -= len(part)
            stream.pending_bytes -= len(part)
            self.sent_bytes += len(part)
            self.out.append(frames.frame(frames.DATA, 0, stream.id, bytes(part)))
            self._ping_strikes = 0
            if len(part) < len(stream.pending[0]):
                stream.pending[0] = stream.pending[0][len(part) :]
            else:
                stream.pending.pop(0)
            if stream.pending:
                waiting[stream] = None
                continue
            if stream.ending is not None:
                self._finish(stream)
            self._events.on_writable(stream)

    def _finish(self, stream: Stream) -> None:
        assert stream.ending is not None  # noqa: S101 - its callers look
        self._append_headers(stream.id, stream.ending, end_stream=True)
        self._close_local(stream)

    def _append_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        if self._table_size_update:
            block, self._table_size_update = self._table_size_update + block, b""
        self.out.append(frames.header_frames(stream_id, block, end_stream=end_stream))
        self._ping_strikes = 0

    def _close_local(self, stream: Stream) -> None:
        """After our END_STREAM: a peer that still sends gets NO_ERROR (RFC 9113, 8.1)."""
        stream.local_closed = True
        if not stream.remote_closed:
            self._send_reset(stream.id, ErrorCode.NO_ERROR)
        self.streams.pop(stream.id, None)
        self._events.on_closed(stream)
        if not self.streams:
            self._close_if_done()

    def _drop(self, stream: Stream) -> None:
        stream.local_closed = stream.remote_closed = True
        stream.pending.clear()
        stream.pending_bytes = 0
        self._waiting.pop(stream, None)
        self.streams.pop(stream.id, None)
        self._events.on_closed(stream)

    def _stream_error(self, stream: Stream, code: ErrorCode) -> None:
        self._count_stream_error()
        self.reset(stream, code)
        self._events.on_reset(stream)
        self._close_if_done()

    def _count_stream_error(self) -> None:
        self._count_reset()
        self._stream_errors += 1
        if self._stream_errors > self._config.streams.max_errors:
            raise _ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too_many_stream_errors")

    def _reset_unopened(self, stream_id: int, code: ErrorCode) -> None:
        self._send_reset(stream_id, code)
        self._count_reset()

    def _count_reset(self) -> None:
        self.cost += RESET_COST
        self.overhead += RESET_COST

    def _send_reset(self, stream_id: int, code: int) -> None:
        self.out.append(frames.rst_stream(stream_id, code))
        self._remember_reset(stream_id)

    def _remember_reset(self, stream_id: int) -> None:
        self._resets[stream_id] = None
        if len(self._resets) > _MAX_REMEMBERED_RESETS:
            forgotten, _ = self._resets.popitem(last=False)
            self._forgotten_up_to = max(self._forgotten_up_to, forgotten)

    def _was_reset(self, stream_id: int) -> bool:
        """Return whether a closed stream was reset here, or may have been.

        A client that sends many requests at once has its frames for those that were refused still
        to send (RFC 9113, 5.1): that is no error of its, however many they are.
        """
        return stream_id in self._resets or stream_id <= self._forgotten_up_to

    def _ensure_not_idle(self, stream_id: int) -> None:
        if not stream_id or not stream_id & 1 or stream_id > self.last_stream_id:
            raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")

    def _close_if_done(self) -> None:
        """Note that the last stream has ended, where one side has said that it is the last.

        After our own GOAWAY the peer closes: it may be sending a request meanwhile, and has to read
        that this one is not processed. Of a closed socket it would read an error.
        """
        if self.streams:
            return
        if self._goaway_received:
            self.closing = True
        elif self._refuse_above < frames.MAX_STREAM_ID:
            self.is_drained = True

    def _fail(self, code: ErrorCode, why: str) -> None:
        """Send GOAWAY and close; open streams end without more."""
        # Never a later stream than an earlier GOAWAY named (RFC 9113, 6.8).
        last = min(self.last_stream_id, self._refuse_above)
        self.out.append(frames.goaway(last, code, why.encode()))
        self.close_streams()


_HANDLERS = (
    Http2Connection._on_data,
    Http2Connection._on_headers,
    Http2Connection._on_priority,
    Http2Connection._on_rst_stream,
    Http2Connection._on_settings,
    Http2Connection._on_push_promise,
    Http2Connection._on_ping,
    Http2Connection._on_goaway,
    Http2Connection._on_window_update,
    Http2Connection._on_continuation,
)
"""By the type of a frame. A connection that held its own methods would refer to itself."""


class _ConnectionError(Exception):
    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


@functools.lru_cache
def _settings(streams: int, list_bytes: int, window_bytes: int) -> bytes:
    return frames.settings_frame(
        {
            frames.MAX_CONCURRENT_STREAMS: streams,
            frames.MAX_HEADER_LIST_SIZE: list_bytes,
            frames.INITIAL_WINDOW_SIZE: window_bytes,
        }
    )


def _check_setting(key: int, value: int) -> None:
    """Raise for a value that is not possible (RFC 9113, 6.5.2)."""
    if key == frames.ENABLE_PUSH and value > 1:
        raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is no boolean")
    if key == frames.MAX_FRAME_SIZE and not frames.MAX_FRAME_BYTES <= value < 2**24:
        raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    if key == frames.INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW:
        raise _ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large")


def _depends_on(data: bytes | memoryview) -> int:
    return int.from_bytes(data[:4], "big") & frames.MAX_STREAM_ID


def _without_padding(payload: bytes) -> memoryview:
    if not payload:
        raise _ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "PADDED without a length")
    padding = payload[0]
    if padding >= len(payload):
        raise _ConnectionError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return memoryview(payload)[1 : len(payload) - padding]
