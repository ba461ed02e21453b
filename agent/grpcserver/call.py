"""One call: from a stream's headers to its trailers, and the context that its handler is given.

A handler runs at once, inside the read that completed its request, up to its first wait. Only a
handler that waits gets a task and a timer for its deadline. A handler that returns its answer, and
not a coroutine that will, gets no coroutine either.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import grpc
from netutil.agent.grpcserver import framing, streams
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import Field, Request, encode_block
from netutil.agent.grpcserver.http2 import REQUEST_COST, Stream
from netutil.agent.grpcserver.steps import FirstStep, ResumedHandler

if TYPE_CHECKING:
    from netutil.agent.grpcserver.protocol import Connection

_LOG = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str | bytes], ...]
_MAX_TRAILERS_BYTES = 8000
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPT = (b"grpc-accept-encoding", ",".join(framing.ENCODINGS).encode())
_STATUS_200 = (b":status", b"200")
_HEAD_BLOCK = encode_block([_STATUS_200, _CONTENT_TYPE, _ACCEPT])
_OK_BLOCK = encode_block([(b"grpc-status", b"0")])
_NOT_METADATA = frozenset((b"te", b"content-type", b"content-length", b"host"))
_CLOSED_STREAM = Stream(0, 0, 0)
_CLOSED_STREAM.local_closed = _CLOSED_STREAM.remote_closed = True
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends. `limit` names the limit of the server that was exceeded, "" for none."""

    code: grpc.StatusCode
    message: str = ""
    trailers: Metadata = ()
    limit: Literal["", "metadata", "message"] = ""


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method, as grpcio's handler describes it."""

    name: str
    behavior: Callable[..., Any]
    request_streaming: bool
    response_streaming: bool
    deserialize: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class CallHead:
    """What gRPC makes of a request's fields.

    `http_status` or `failure` is set where the request is no call.
    """

    method: Method | None
    path: str
    timeout: float | None = None
    encoding: str = "identity"
    http_status: int = 0
    failure: Status | None = None
    fields: Mapping[bytes, bytes] = field(default_factory=dict)
    """The first value of each field of the request."""
    is_stream: bool = False
    """More than one message may be sent, by either side."""


def parse_head(request: Request, find: Callable[[str], Method | None]) -> CallHead:
    """Return the call that a request asks for (doc/PROTOCOL-HTTP2.md, "Requests")."""
    path = request.path.decode("utf-8", errors="backslashreplace")
    if request.oversized:
        text = "The metadata of the call is larger than the server takes."
        too_large = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, text, limit="metadata")
        return CallHead(None, path, failure=too_large, fields=_first_values(request))
    if request.method != b"POST":
        return CallHead(None, path, http_status=405)
    named: dict[bytes, list[bytes]] = {}
    for name, value in request.fields:
        if name in (b"content-type", b"grpc-timeout", b"grpc-encoding"):
            named.setdefault(name, []).append(value)
    types_ = named.get(b"content-type", [])
    if len(types_) != 1 or not _is_grpc(types_[0].lower()):
        return CallHead(None, path, http_status=415)
    failure: Status | None = None
    timeout = None
    timeouts = named.get(b"grpc-timeout", [])
    if timeouts:
        timeout = framing.parse_timeout(timeouts[0].decode("ascii", errors="replace"))
        if timeout is None or len(timeouts) > 1:
            failure = Status(grpc.StatusCode.INTERNAL, "The call's grpc-timeout is malformed.")
    if request.scheme not in (b"http", b"https"):
        failure = Status(grpc.StatusCode.INTERNAL, "The call's scheme is neither http nor https.")
    encoding = named.get(b"grpc-encoding", [b"identity"])[0].decode("ascii", errors="replace")
    method = find(path)
    if method is None:
        failure = Status(grpc.StatusCode.UNIMPLEMENTED, "The server has no such method.")
    is_stream = method is not None and (method.request_streaming or method.response_streaming)
    first = _first_values(request)
    return CallHead(method, path, timeout, encoding, 0, failure, first, is_stream)


def _first_values(request: Request) -> dict[bytes, bytes]:
    return dict(reversed(request.fields))


def _is_grpc(content_type: bytes) -> bool:
    kind = b"application/grpc"
    return content_type == kind or content_type.startswith((kind + b"+", kind + b";"))


class _Message(NamedTuple):
    """A message that no handler has taken yet, and how much of its stream's window it holds.

    One that came in one frame holds as much of the connection's window. Of any other `held_bytes`
    were held, and `reserved` is what the connection counts for it.
    """

    body: bytes
    size: int
    is_compressed: bool
    held_bytes: int = 0
    reserved: int = 0


class Call(grpc.aio.ServicerContext[Any, Any]):
    """A call, and the `ServicerContext` of its handler. `connection` is the call's connection."""

    # There is a call for each request, and most change few of these: the class has the others.
    _method: Method
    """Not there where the head has none: such a call ends at once."""
    _expires: float | None = None
    _granted = 0
    """Of the message that has begun: by how much the window of its stream was opened for it."""
    _reserved = 0
    """How much the connection counts for it."""
    _received = 0
    _ended = False
    _started = False
    _has_read = False
    _reading: asyncio.Future[None] | None = None
    _writing: asyncio.Future[None] | None = None
    _task: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _initial: Metadata = ()
    _headers_sent = False
    _trailing: Metadata = ()
    _code: grpc.StatusCode | None = None
    _details = ""
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _sent_callbacks: tuple[Callable[[], None], ...] = ()
    is_admitted = False
    """The policy counts it. Set by the connection, which asks."""
    _handler_ended = False
    _stream_closed = False
    _over = False
    """The stream has its trailers, or was reset: nothing is sent any more."""
    _cancelled = False

    def __init__(self, connection: Connection, stream: Stream, request: Request, head: CallHead):
        self.connection = connection
        self.head = head
        self._request = request
        self._stream = stream
        self._loop = connection.loop
        if head.method is not None:
            self._method = head.method
        if head.timeout is not None:
            self._expires = self._loop.time() + head.timeout
        self._buffer = bytearray()
        self._messages: list[_Message] = []  # at most `max_unread`

    # The request

    def receive(self, data: memoryview) -> None:
        """Take bytes of the request's messages."""
        size = len(data)
        if self._over:
            self.connection.http2.consumed(None, size)
            return
        buffer = self._buffer
        if not buffer and size >= framing.PREFIX_BYTES:
            length = int.from_bytes(data[1:5], "big")
            if length + framing.PREFIX_BYTES == size:
                if not (data[0] or self._received or self._method.request_streaming) and (
                    length <= self.connection.config.messages.max_request_bytes
                ):
                    # The one message of a unary call, as nearly all are: `_take` has no objection.
                    self._received = 1
                    self.connection.http2.cost += 1
                    self._messages.append(
                        tuple.__new__(_Message, (bytes(data[5:]), size, False, 0, 0))
                    )
                    self.connection.ready.append(self)
                    return
                self._take(_Message(bytes(data[5:]), size, bool(data[0])), data[0])
                return
        buffer += data
        self.connection.http2.hold(size)
        while len(buffer) >= framing.PREFIX_BYTES and not self._over:
            length = int.from_bytes(buffer[1:5], "big")
            if length > self.connection.config.messages.max_request_bytes:
                self._refuse(self._too_large())
                break
            whole = length + framing.PREFIX_BYTES
            if len(buffer) < whole:
                break
            flag, body = buffer[0], bytes(buffer[5:whole])
            del buffer[:whole]
            size, self._granted = whole - self._granted, 0
            reserved, self._reserved = self._reserved, 0
            self._take(_Message(body, size, bool(flag), whole, reserved), flag)
        if self._lacks_window():
            self.connection.reserve(self)

    def _lacks_window(self) -> bool:
        """Return whether a message has begun that is larger than the stream's window."""
        if len(self._buffer) < framing.PREFIX_BYTES or self._reserved:
            return False
        return self._lacking_bytes() > 0

    def _lacking_bytes(self) -> int:
        to_come = self._begun_bytes() - len(self._buffer)
        return to_come - self.connection.http2.open_window(self._stream)

    def _begun_bytes(self) -> int:
        """Return the size of the message that has begun, with its prefix."""
        return framing.PREFIX_BYTES + int.from_bytes(self._buffer[1:5], "big")

    def credit(self) -> int:
        """Open the window for the rest of a message; return how large that message is.

        0 if its window is open by now, since the handler took the messages before it.
        """
        if not self._lacks_window():
            return 0
        self._granted = self._lacking_bytes()
        self._reserved = self._begun_bytes()
        self.connection.http2.grant(self._stream, self._granted)
        self.connection.flush_soon()
        return self._reserved

    def _drop_request(self) -> None:
        """Give back the window of what no handler will take any more."""
        messages, self._messages = self._messages, []
        for message in messages:
            self._drop(message)
        reserved, self._reserved = self._reserved, 0
        self.connection.forget_call(self)
        self.connection.release(reserved)
        self.connection.http2.release(len(self._buffer))
        self._buffer.clear()

    def _drop(self, message: _Message) -> None:
        """Give back the connection's window of a message."""
        if message.held_bytes:
            self.connection.http2.release(message.held_bytes)
            self.connection.release(message.reserved)
        else:
            self.connection.http2.consumed(None, message.size)

    @property
    def awaits_request(self) -> bool:
        """Whether its handler needs more of the request than has come."""
        method = self.head.method
        return method is None or method.request_streaming or not self._received

    def receive_end(self) -> None:
        """The peer sends no more."""
        self._ended = True
        if self._over:
            return
        if self._buffer:
            self._refuse(Status(grpc.StatusCode.INTERNAL, "The call's last message is cut off."))
        elif self.head.method and not self.head.method.request_streaming and not self._received:
            self.reject(Status(grpc.StatusCode.UNIMPLEMENTED, "The call brought no message."))
        if self._reading is not None:
            self._wake_reader()

    def _take(self, message: _Message, flag: int) -> None:
        method, http2 = self._method, self.connection.http2
        if flag or len(message.body) > self.connection.config.messages.max_request_bytes:
            status = self._message_error(flag, len(message.body))
            if status is not None:
                self._drop(message)
                self._refuse(status)
                return
        self._received += 1
        # Many messages may come in one frame, and each is work for the handler.
        http2.cost += REQUEST_COST if method.request_streaming else 1
        if len(self._messages) >= self.connection.config.messages.max_unread:
            self._drop(message)
            text = "The call sent more messages than its handler has read."
            self._refuse(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
            return
        self._messages.append(message)
        if method.request_streaming:
            self._wake_reader()
        elif self._received == 1:
            self.connection.ready.append(self)
        else:
            text = "The call brought a second message."
            self._refuse(Status(grpc.StatusCode.UNIMPLEMENTED, text))

    def _message_error(self, flag: int, size: int) -> Status | None:
        """Return why a message cannot be taken, None if it can (doc/compression.md)."""
        encoding, code = self.head.encoding, grpc.StatusCode
        if size > self.connection.config.messages.max_request_bytes:
            return self._too_large()
        if flag > 1 or (flag and encoding == "identity"):
            return Status(code.INTERNAL, "The call's message has a flag that is not possible.")
        if flag and encoding not in framing.ENCODINGS:
            text = "The server does not know the call's grpc-encoding."
            return Status(code.UNIMPLEMENTED, text)
        return None

    def _too_large(self) -> Status:
        most = self.connection.config.messages.max_request_bytes
        text = f"The call's message is larger than {most} bytes."
        return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, text, limit="message")

    def _inflate(self, body: bytes) -> bytes:
        encoding = self.head.encoding
        try:
            return framing.inflate(
                body, encoding, self.connection.config.messages.max_request_bytes
            )
        except framing.TooLargeError as too_large:
            raise _RequestError(self._too_large()) from too_large
        except framing.InflateError as error:
            text = f"The call's message is not {encoding}."
            raise _RequestError(Status(grpc.StatusCode.INTERNAL, text)) from error

    def _refuse(self, status: Status) -> None:
        """End the call for what its request is, also while its handler runs."""
        self.reject(status)
        if self._task is not None:
            self._task.cancel()

    def _wake_reader(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    # The handler

    def start(self) -> None:
        """Run the handler up to its first wait."""
        if self._over or self._started:
            return
        self._started = True
        if self._expires is not None and self._loop.time() >= self._expires:
            self._on_deadline()
            self._finished()
            return
        context = contextvars.copy_context()
        context.run(self._begin, context)

    def _begin(self, context: contextvars.Context) -> None:
        """Call the handler, in its context; answer if it has returned the answer."""
        if self.head.is_stream:
            self._run_to_first_wait(self._finish(self._run_streaming()), context)
            return
        try:
            found = self._method.behavior(self._deserialize(self._messages.pop(0)), self)
            kind = type(found)
            if kind is framing.EncodedMessage or not (
                kind is CoroutineType or inspect.isawaitable(found)
            ):
                if not self._over:
                    self._respond(found)
                self._finished()
                return
        except asyncio.CancelledError:  # of what it asked for a result
            self.end(Status(grpc.StatusCode.CANCELLED, "The call was cancelled."))
            self._finished()
            return
        except Exception as error:  # noqa: BLE001 - a handler's bug is a status, and logged
            self._raised(error)
            self._finished()
            return
        self._run_to_first_wait(self._finish(self._run_unary(found)), context)

    def _run_to_first_wait(
        self, main: Coroutine[Any, Any, None], context: contextvars.Context
    ) -> None:
        first = FirstStep(self.connection)
        asyncio.tasks._enter_task(self._loop, first)  # type: ignore[arg-type]
        try:
            waiting = main.send(None)
        except (StopIteration, asyncio.CancelledError):
            return  # The call has ended, as it would have in a task that was cancelled.
        finally:
            asyncio.tasks._leave_task(self._loop, first)  # type: ignore[arg-type]
        resumed = ResumedHandler(main, waiting, self._loop, self.connection)
        task = self._loop.create_task(resumed, context=context)
        first.task = self._task = task
        if self._cancelled:
            task.cancel()
        else:
            self._watch_deadline()

    def _watch_deadline(self) -> None:
        if self._expires is not None and self._timer is None:
            self._timer = self._loop.call_at(self._expires, self.connection.run, self._on_deadline)

    async def _finish(self, handler: Coroutine[Any, Any, None]) -> None:
        """Run a handler, and end the call as it ends."""
        try:
            await handler
        except asyncio.CancelledError:
            self.end(Status(grpc.StatusCode.CANCELLED, "The call was cancelled."))
            raise
        except Exception as error:  # noqa: BLE001 - a handler's bug is a status, and logged
            self._raised(error)
        finally:
            self._finished()

    def _raised(self, error: Exception) -> None:
        if isinstance(error, _RequestError):
            self.reject(error.status)
        elif not isinstance(error, grpc.aio.AbortError):
            self._failed(error)

    async def _run_unary(self, found: Any) -> None:
        answer = await found
        if not self._over:
            self._respond(answer)

    async def _run_streaming(self) -> None:
        method = self._method
        if method.request_streaming:
            asked: Any = streams.requests(self)
        else:
            asked = self._deserialize(self._messages.pop(0))
        found = method.behavior(asked, self)
        if not method.response_streaming:
            await self._run_unary(found if inspect.isawaitable(found) else _returned(found))
            return
        if hasattr(found, "__aiter__"):
            await streams.write_all(self, found)
        elif inspect.isawaitable(found):
            await found
        else:
            raise TypeError(f"a streaming handler returned {type(found).__name__}")
        self.end(Status(self._code or grpc.StatusCode.OK, self._details, self._trailing))

    def _respond(self, answer: Any) -> None:
        is_encoded = type(answer) is framing.EncodedMessage
        framed: bytes = answer.framed if is_encoded else self._framed(answer)
        if len(framed) > self.connection.config.messages.max_response_bytes + framing.PREFIX_BYTES:
            text = "The answer is larger than the server sends."
            self.end(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
            return
        if self._code not in (None, grpc.StatusCode.OK) or self._headers_sent:
            self._send_message(framed)
            self.end(Status(self._code or grpc.StatusCode.OK, self._details, self._trailing))
            return
        self._over = True
        if self._messages or self._buffer:
            self._drop_request()
        head = self._initial_block() if self._initial else _HEAD_BLOCK
        trailers = _OK_BLOCK
        if self._details or self._trailing:
            trailers = _trailers_block(Status(grpc.StatusCode.OK, self._details, self._trailing))
        connection = self.connection
        connection.http2.send_unary(self._stream, head, framed, trailers)
        if not connection.is_processing:
            connection.flush_soon()

    def _framed(self, answer: Any) -> bytes:
        """Return a message of a handler's as it is sent."""
        if type(answer) is framing.EncodedMessage:
            return answer.framed
        return framing.message(self._method.serialize(answer))

    def _failed(self, error: Exception) -> None:
        if not self._over and self._code not in (None, grpc.StatusCode.OK):
            # As grpcio: a code that was set counts, whatever was raised after it.
            assert self._code is not None  # noqa: S101
            self.end(Status(self._code, self._details, self._trailing))
            return
        _LOG.error("grpcserver: %s failed", self.head.path, exc_info=error)
        self.end(Status(grpc.StatusCode.UNKNOWN, f"The handler failed ({type(error).__name__})."))

    def _deserialize(self, message: _Message) -> Any:
        if message.held_bytes:
            self.connection.http2.consumed_of_stream(self._stream, message.size)
            self._drop(message)
            self.connection.flush_soon()
        else:
            http2 = self.connection.http2
            http2.consumed(self._stream, message.size)
            if http2.out:
                self.connection.flush_soon()
        body = self._inflate(message.body) if message.is_compressed else message.body
        try:
            return self._method.deserialize(body)
        except Exception as error:
            text = "The call's message is not what the method takes."
            raise _RequestError(Status(grpc.StatusCode.INTERNAL, text)) from error

    # How it ends

    def reject(self, status: Status) -> None:
        """End a call that is not well-formed, or past a limit of the server."""
        if not self._over:
            self.end(self.connection.rejected(self, status))

    def end(self, status: Status) -> None:
        """Send the trailers, unless the stream has ended."""
        if self._over:
            return
        self._over = True
        self._code, self._details = status.code, status.message
        if self._messages or self._buffer:
            self._drop_request()
        http2 = self.connection.http2
        if self._headers_sent:
            http2.send_trailers(self._stream, _trailers_block(status))
        else:
            fields = [_STATUS_200, _CONTENT_TYPE]
            if status.code is grpc.StatusCode.UNIMPLEMENTED:
                fields.append(_ACCEPT)
            fields += framing.metadata_fields(self._initial)
            http2.send_trailers(self._stream, encode_block(fields + _trailers(status)))
        self.connection.flush_soon()
        if not self._started:
            self._finished()

    def cancel(self) -> None:
        """The stream was reset, or the connection has ended."""
        if not self._over:
            self._over = True
            self._code = grpc.StatusCode.CANCELLED
        self._cancelled = True
        if self._messages or self._buffer:
            self._drop_request()
        if self._task is not None:
            self._task.cancel()
        elif not self._started:
            self._finished()

    def _on_deadline(self) -> None:
        if self._stream.pending_bytes:
            # A peer that takes no data never sees the trailers, which come after it. Its own
            # deadline ends the call now: to one that has part of a message, the end of the stream
            # would be INTERNAL (grpc-go) or CANCELLED if it came first.
            seconds = self.connection.config.timeouts.late_reset
            self._timer = self._loop.call_later(seconds, self.connection.run, self._reset)
        self.end(Status(grpc.StatusCode.DEADLINE_EXCEEDED, "The call's deadline is over."))
        if self._task is not None:
            self._task.cancel()

    def _reset(self) -> None:
        self.connection.http2.reset(self._stream, ErrorCode.CANCEL)
        self.connection.flush_soon()

    def _finished(self) -> None:
        self._started = True
        self._handler_ended = True
        if self._stream_closed:
            self._release()
        elif self._stream.pending_bytes:
            self._watch_deadline()
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - the others are called all the same
                _LOG.error("grpcserver: a callback of %s failed", self.head.path, exc_info=error)

    def stream_closed(self) -> None:
        """Nothing of this call is queued any more."""
        self._stream_closed = True
        for callback in self._sent_callbacks:
            self.connection.when_sent(callback)
        self._sent_callbacks = ()
        if self._handler_ended:
            self._release()

    def _release(self) -> None:
        """Its handler and its stream have ended: leave nothing to the garbage collector."""
        if self._timer is not None:
            self._timer.cancel()
        self._stream, self._task = _CLOSED_STREAM, None
        self.connection.call_finished(self)

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the kernel has all of this call's answer, or never will have it."""
        if self._stream_closed:
            self.connection.when_sent(callback)
        else:
            self._sent_callbacks += (callback,)

    def writable(self) -> None:
        """All that was written has been sent."""
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    # grpc.aio.ServicerContext

    async def read(self) -> Any:
        """Return the next message, `grpc.aio.EOF` after the last.

        Each further message is a step of the handler: a read may bring thousands, each with its
        work.
        """
        if self._has_read:
            await asyncio.sleep(0)
        self._has_read = True
        while not self._messages:
            if self._ended or self._over:
                return grpc.aio.EOF
            self._reading = self._loop.create_future()
            await self._reading
        return self._deserialize(self._messages.pop(0))

    async def write(self, message: Any) -> None:
        """Send a message; return once the peer has taken all but `max_buffered_response_bytes`."""
        if self._over:
            raise asyncio.CancelledError
        framed = self._framed(message)
        if len(framed) > self.connection.config.messages.max_response_bytes + framing.PREFIX_BYTES:
            text = "The answer is larger than the server sends."
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._send_message(framed)
        while (
            self._stream.pending_bytes > self.connection.config.messages.max_buffered_response_bytes
        ):
            self._writing = self._loop.create_future()
            await self._writing

    def _send_message(self, framed: bytes) -> None:
        self._send_initial()
        self.connection.http2.send_data(self._stream, framed)
        self.connection.flush_soon()

    def _send_initial(self) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            block = self._initial_block() if self._initial else _HEAD_BLOCK
            self.connection.http2.send_headers(self._stream, block)

    def _initial_block(self) -> bytes:
        return encode_block(
            [_STATUS_200, _CONTENT_TYPE, _ACCEPT, *framing.metadata_fields(self._initial)]
        )

    async def send_initial_metadata(self, initial_metadata: Iterable[Any]) -> None:
        """Send the headers of the response now. Raises `ValueError` for what HTTP/2 bars."""
        if self._headers_sent:
            raise RuntimeError("the initial metadata has been sent")
        self._initial = _checked(initial_metadata)
        self._send_initial()
        self.connection.flush_soon()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[Any] = ()
    ) -> NoReturn:
        """End the call with a status. Raises `grpc.aio.AbortError`.

        Raises `ValueError` for trailing metadata that HTTP/2 bars; the call goes on then.
        """
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, "The handler aborted with OK."
        trailers = (*self._trailing, *_checked(trailing_metadata))
        self.end(Status(code, details, trailers))
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a `grpc.Status`."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        """Set what is sent with the status. Raises `ValueError` for what HTTP/2 bars."""
        self._trailing = _checked(trailing_metadata)

    def invocation_metadata(self) -> Metadata:  # type: ignore[override]
        """Return the caller's metadata, which is decoded each time.

        A request is kept and may come again (`Request.notes`), and a block of a kilobyte may make
        thousands of values.
        """
        return _metadata(self._request)

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header field as it was sent, None without one."""
        return self.head.fields.get(name)

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """Set the status code."""
        self._code = _CODES[code] if isinstance(code, int) else code

    def set_details(self, details: str) -> None:
        """Set the status message."""
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: answers are never compressed, on a socket of this machine."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: answers are never compressed."""

    def peer(self) -> str:
        """Return that the peer is on a Unix socket, as grpcio does."""
        return "unix:"

    def peer_identities(self) -> None:
        """Return None: the transport authenticates no peer. The connection has its peer."""

    def peer_identity_key(self) -> None:
        """Return None."""

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        """Return nothing."""
        return {}

    def time_remaining(self) -> float | None:  # type: ignore[override]
        """Return the seconds to the deadline, None without one."""
        return None if self._expires is None else max(0.0, self._expires - self._loop.time())

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]
        """Return what was set."""
        return self._trailing

    def code(self) -> grpc.StatusCode | None:  # type: ignore[override]
        """Return the status code that was set, None if none was."""
        return self._code

    def details(self) -> str:
        """Return the status message that was set."""
        return self._details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with the context when the handler has ended."""
        self._callbacks += (callback,)

    def cancelled(self) -> bool:
        """Return whether the peer, or the end of the connection, has cancelled the call."""
        return self._cancelled

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._over


def call_of(context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    """Return the call that a handler's context is. Raises TypeError for that of another server."""
    if not isinstance(context, Call):
        raise TypeError(f"{type(context).__name__} is no call of this server")
    return context


async def _returned(answer: Any) -> Any:
    return answer


class _RequestError(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


def _checked(metadata: Iterable[Any]) -> Metadata:
    """Return metadata of a handler. Raises `ValueError` for what HTTP/2 bars."""
    found = tuple(metadata)
    framing.metadata_fields(found)
    return found


def _metadata(request: Request) -> Metadata:
    found: list[tuple[str, str | bytes]] = []
    for name, value in request.fields:
        if name in _NOT_METADATA or name.startswith(b"grpc-"):
            continue
        key = name.decode("ascii")
        if not key.endswith("-bin"):
            found.append((key, value.decode("utf-8", errors="replace")))
            continue
        try:
            found += [(key, one) for one in framing.decode_binary(value)]
        except ValueError as error:
            text = f"The call's metadata {key!r} is not base64."
            raise _RequestError(Status(grpc.StatusCode.INTERNAL, text)) from error
    return tuple(found)


def _trailers(status: Status) -> list[Field]:
    fields = [(b"grpc-status", str(status.code.value[0]).encode())]
    if status.message:
        fields.append((b"grpc-message", framing.encode_status_message(status.message)))
    further = framing.metadata_fields(status.trailers)
    left = _MAX_TRAILERS_BYTES - sum(len(name) + len(value) + 32 for name, value in fields)
    for name, value in further:
        left -= len(name) + len(value) + 32
        if left >= 0:
            fields.append((name, value))
    return fields


def _trailers_block(status: Status) -> bytes:
    if status.code is grpc.StatusCode.OK and not status.message and not status.trailers:
        return _OK_BLOCK
    return encode_block(_trailers(status))


def http_error(code: int) -> bytes:
    """Return the block of an answer to what is no gRPC request."""
    return encode_block([(b":status", str(code).encode()), (b"content-type", b"text/plain")])


__all__ = ["Call", "CallHead", "Method", "Status", "call_of", "http_error", "parse_head"]
