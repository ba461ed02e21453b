"""gRPC's protocol over HTTP/2: requests, deadlines, messages, responses, shutting down."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from netutil.agent.grpcserver import Call, Connection, ServerConfig, Status, Timeouts
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.http2 import REQUEST_COST

from tests.support.grpcserver.policy import OpenPolicy, Work
from tests.support.grpcserver.raw import PATH, Bench, RawClient, fields, serving
from tests.support.http2 import (
    DATA,
    END_STREAM,
    PREFACE,
    block,
    frame,
    header_frames,
    message,
    settings,
)

UNARY, BOTH = PATH, "/test.Echo/Both"


@pytest.mark.parametrize(
    "authority",
    [None, "", "localhost", "localhost:80", "/path", "unix:/p", "path%2Fto.sock", "x.s"],
)
async def test_the_server_takes_any_authority_of_a_unix_client(
    authority: str | None,
) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_authority=authority))
        assert (await client.answer())[0]["grpc-status"] == "0"


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", ""])
async def test_another_method_than_post_is_405(method: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_method=method))
        found, _ = await client.answer()
        assert found[":status"] == "405" and "grpc-status" not in found
        await client.lives()


TYPES = {
    "application/grpc": True,
    "application/grpc+proto": True,
    "application/grpc;charset=utf-8": True,
    "APPLICATION/GRPC": True,
    "application/grpcx": False,
    "application/grpc-web": False,
    "application/json": False,
    "": False,
}


@pytest.mark.parametrize("kind", [*TYPES, None])
async def test_a_request_that_is_not_grpc_gets_415(kind: str | None) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(content_type=kind))
        found, _ = await client.answer()
        taken = TYPES.get(kind or "", False)
        assert found[":status"] == ("200" if taken else "415")
        assert ("grpc-status" in found) is taken
        await client.lives()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "*", "//", "", "/x", "/test.Echo/", "/test.Echo/Unary/", "/test.Echo/unary"),
        *("/test.Echo/Unary?x=1", "/test.Echo", "/a/" + "b" * 5000, "/\x80/\xff", "/a b/c", "test"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_an_unknown_method_is_unimplemented_at_once(path: str, whole: bool) -> None:
    async with serving() as bench:
        client = await bench.connect()
        head = [(n, path.encode("latin-1") if n == b":path" else v) for n, v in fields()]
        if whole:
            client.ask(head=head)
        else:
            from netutil.agent.grpcserver.headers import encode_block

            client.send(f.header_frames(1, encode_block(head), end_stream=False))
        found, _ = await client.answer()
        assert found["grpc-status"] == "12"
        await client.lives()


async def test_fields_that_the_server_does_not_know_are_no_error() -> None:
    async with serving() as bench:
        client = await bench.connect()
        more = (
            *(
                ("user-agent", "x"),
                ("grpc-accept-encoding", "x"),
                ("grpc-previous-rpc-attempts", "1"),
            ),
            *(("grpc-tags-bin", "!"), ("cookie", "a"), ("cookie", "b"), ("host", "h"), ("x", "é")),
            *(("tab", "a\tb"), ("blank", " a "), ("empty", "")),
        )
        client.ask(head=[*fields(), *((n.encode(), v.encode()) for n, v in more)])
        assert (await client.answer())[0]["grpc-status"] == "0"
        metadata = dict(bench.echo.contexts[0].invocation_metadata())
        assert metadata["x"] == "é" and metadata["blank"] == "a" and metadata["user-agent"] == "x"
        assert not {name for name in metadata if name.startswith((":", "grpc-"))}


async def test_binary_metadata_is_decoded_when_it_is_read() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(
            head=[*fields(), (b"a-bin", b"AQI"), (b"a-bin", b"AQI="), (b"b-bin", b"AQI,AwQ")]
        )
        assert (await client.answer())[0]["grpc-status"] == "0"
        found = bench.echo.contexts[0].invocation_metadata()
        assert found == (
            ("a-bin", b"\1\2"),
            ("a-bin", b"\1\2"),
            ("b-bin", b"\1\2"),
            ("b-bin", b"\3\4"),
        )


@pytest.mark.parametrize("size", [7000, 8500, 17_000, 70_000])
async def test_metadata_that_is_too_large_fails_that_call_alone(size: int) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        client.ask(3, head=[*fields(), (b"large", b"x" * size)])
        found, _ = await client.answer(3)
        assert found["grpc-status"] == ("0" if size == 7000 else "8")
        bench.echo.gate.set()
        client.ask(5)
        assert (await client.answer(5))[0]["grpc-status"] == "0"


@pytest.mark.parametrize("given", ["1H", "1M", "5S", "5000m", "9999999u", "99999999n", "99999999H"])
async def test_each_unit_of_a_timeout_is_understood(given: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(grpc_timeout=given))
        assert (await client.answer())[0]["grpc-status"] == "0"
        assert bench.echo.contexts[0].time_remaining() is not None


@pytest.mark.parametrize("given", ["1", "S", "-1S", "1.5S", "1x", "123456789S", " 1S", "1s", ""])
async def test_a_malformed_timeout_is_an_error(given: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(grpc_timeout=given))
        found, _ = await client.answer()
        assert found["grpc-status"] == ("0" if given == " 1S" else "13")


@pytest.mark.parametrize("given", ["0n", "0S", "1n"])
async def test_a_deadline_that_is_over_does_no_work(given: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(grpc_timeout=given))
        assert (await client.answer())[0]["grpc-status"] == "4"
        assert bench.echo.contexts == []


async def test_a_handler_is_cancelled_at_its_deadline() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_path="/test.Echo/Slow", grpc_timeout="50m"))
        assert (await client.answer())[0]["grpc-status"] == "4"
        await asyncio.sleep(0)
        assert (bench.echo.running, bench.echo.ended) == (0, ["slow"])
        await client.lives()


@pytest.mark.parametrize("code", [0, 7, 8, 11, 99])
async def test_a_reset_of_the_peer_cancels_the_handler_once(code: int) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_path="/test.Echo/Slow"))
        await bench.until_running(1)
        client.send(f.rst_stream(1, code))
        await client.lives()
        await asyncio.sleep(0)
        assert (bench.echo.running, bench.echo.ended) == (0, ["slow"])


async def test_the_end_of_the_connection_cancels_its_handlers() -> None:
    async with serving() as bench:
        client = await bench.connect()
        for stream in (1, 3, 5):
            client.ask(stream, head=fields(p_path="/test.Echo/Slow"))
        await bench.until_running(3)
        client.writer.transport.abort()
        await bench.until_running(0)
        assert bench.echo.ended == ["slow"] * 3


async def test_one_byte_a_data_frame_is_a_message_all_the_same() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=b"", end=False)
        for byte in message(b"hello"):
            client.send(f.frame(f.DATA, 0, 1, bytes([byte])))
        client.send(f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer())[1] == message(b"hello")


async def test_two_messages_in_one_frame_are_two() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=message(b"a") + message(b"b"), head=fields(p_path="/test.Echo/Collect"))
        assert (await client.answer())[1] == message(b"a,b")


MESSAGES: dict[str, tuple[bytes, str]] = {
    "none": (b"", "12"),
    "half a prefix": (b"\0\0", "13"),
    "half a message": (message(b"hello")[:-1], "13"),
    "two": (message(b"a") + message(b"b"), "12"),
    "flag 1 without an encoding": (message(b"a", 1), "13"),
    "flag 2": (message(b"a", 2), "13"),
    "flag 255": (message(b"a", 255), "13"),
    "4 GiB, from the prefix alone": (b"\0\xff\xff\xff\xff", "8"),
    "one byte more than the limit": (message(bytes(64 * 1024 + 1))[:100], "8"),
}


@pytest.mark.parametrize("case", MESSAGES)
async def test_a_message_that_is_none_fails_its_call(case: str) -> None:
    body, status = MESSAGES[case]
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=body)
        assert (await client.answer())[0]["grpc-status"] == status
        await client.lives()


async def test_a_unary_call_without_a_message_is_unimplemented() -> None:
    from netutil.agent.grpcserver.headers import encode_block

    async with serving() as bench:
        client = await bench.connect()
        client.send(f.header_frames(1, encode_block(fields()), end_stream=True))
        assert (await client.answer())[0]["grpc-status"] == "12"


GZIP = gzip.compress(b"hello")
ENCODED: dict[str, tuple[str, bytes, str]] = {
    "gzip": ("gzip", GZIP, "0"),
    "deflate": ("deflate", zlib.compress(b"hello"), "0"),
    "identity, flag 1": ("identity", b"hello", "13"),
    "unknown": ("snappy", b"hello", "12"),
    "garbage": ("gzip", b"garbage", "13"),
    "cut off": ("gzip", GZIP[:-4], "13"),
    "two members": ("gzip", GZIP + GZIP, "13"),
    "10 MiB of zeros": ("gzip", gzip.compress(bytes(10 * 2**20)), "8"),
}


@pytest.mark.parametrize("case", ENCODED)
async def test_a_compressed_message_is_inflated_within_the_limit(case: str) -> None:
    encoding, body, status = ENCODED[case]
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=message(body, 1), head=fields(grpc_encoding=encoding))
        found, data = await client.answer()
        assert found["grpc-status"] == status
        if status == "0":
            assert data == message(b"hello")
        if status == "12":
            assert found["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_an_unknown_encoding_does_no_harm_to_plain_messages() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(grpc_encoding="snappy"))
        assert (await client.answer())[0]["grpc-status"] == "0"


async def test_a_good_answer_is_headers_data_and_trailers() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=message(b"x"))
        head = await client.until(f.HEADERS, 1)
        assert client.decoded(head)[":status"] == "200"
        data, trailers = await client.frame(), await client.frame()
        assert data is not None and (data.kind, data.payload) == (f.DATA, message(b"x"))
        assert trailers is not None and trailers.flags == f.END_STREAM | f.END_HEADERS
        assert client.decoded(trailers) == {"grpc-status": "0"}


async def test_an_error_before_any_message_is_trailers_only() -> None:
    text = "100 % é\n" + "x" * 10_000
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=message(text.encode()), head=fields(p_path="/test.Echo/Aborts"))
        only = await client.until(f.HEADERS, 1)
        assert only.flags == f.END_STREAM | f.END_HEADERS
        found = client.decoded(only)
        assert (found[":status"], found["grpc-status"]) == ("200", "5")
        assert found["grpc-message"].startswith("100 %25 %C3%A9%0Axxx")
        assert len(found["grpc-message"]) < 3000
        assert found["grpc-status-details-bin"] == base64.b64encode(b"\1\2").decode().rstrip("=")


async def test_an_error_after_messages_is_in_the_trailers() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_path="/test.Echo/Generates"))
        found, data = await client.answer()
        assert data == message(b"0") + message(b"1") + message(b"2")
        assert found["grpc-status"] == "2" and "secret" not in str(found)


async def test_a_handlers_exception_is_unknown_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_path="/test.Echo/Fails"))
        found, _ = await client.answer()
        assert found["grpc-status"] == "2" and "secret" not in found["grpc-message"]
    assert "a secret of the handler" in caplog.text


async def test_an_answer_before_the_clients_end_frees_the_stream() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(end=False, head=fields(p_path="/test.Echo/Aborts"))
        assert (await client.answer())[0]["grpc-status"] == "5"
        reset = await client.until(f.RST_STREAM, 1)
        assert int.from_bytes(reset.payload, "big") == ErrorCode.NO_ERROR
        for _ in range(12):
            client.send(f.frame(f.DATA, 0, 1, bytes(8192)))
        await client.lives()


async def test_a_unary_call_is_answered_before_its_half_close() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=message(b"x"), end=False)
        assert (await client.answer())[1] == message(b"x")


async def test_messages_of_both_sides_go_on_until_the_half_close() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(body=b"", end=False, head=fields(p_path=BOTH))
        for text in (b"a", b"b"):
            client.send(f.frame(f.DATA, 0, 1, message(text)))
            assert (await client.until(f.DATA, 1)).payload == message(text)
        client.send(f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer())[0]["grpc-status"] == "0"


async def test_a_slow_reader_keeps_its_own_stream_waiting_and_no_other() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, message(b"100000"), head=fields(p_path="/test.Echo/Many"))
        client.ask(3, message(b"x"), head=fields(p_path="/test.Echo/Unary"))
        client.send(f.window_update(3, 100))
        assert (await client.answer(3))[1] == message(b"x")
        (connection,) = bench.server.connections
        most = bench.server.config.messages.max_buffered_response_bytes
        assert connection.http2.streams[1].pending_bytes < most + 1100
        assert bench.echo.running == 1
        client.send(f.rst_stream(1, 8))
        await client.lives_with_window(5)
        await asyncio.sleep(0)
        assert bench.echo.ended == ["many"]


async def test_small_messages_do_not_wait_for_a_slow_reader() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, message(b"1"), head=fields(p_path="/test.Echo/Many"))
        await client.until(f.HEADERS, 1)
        assert bench.echo.ended == ["many"]
        client.send(f.window_update(1, 2000))
        found, data = await client.answer(1)
        assert (found["grpc-status"], data) == ("0", message(b"0" * 1000))


async def test_a_handler_gets_one_message_in_an_iteration_of_the_loop() -> None:
    async with serving() as bench:
        loop = asyncio.get_running_loop()
        iteration, seen, answered = 0, [], False

        def count() -> None:
            nonlocal iteration
            iteration += 1
            if not answered:
                loop.call_soon(count)

        async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
            async for _ in requests:
                seen.append(iteration)
            return b""

        handler: Any = grpc.stream_unary_rpc_method_handler(collect)
        bench.server.add_registered_method_handlers("test.Other", {"Collect": handler})
        loop.call_soon(count)
        client = await bench.connect()
        client.ask(body=message(b"x") * 100, head=fields(p_path="/test.Other/Collect"))
        assert (await client.answer())[0]["grpc-status"] == "0"
        answered = True
        assert len(set(seen)) == len(seen) == 100


async def test_each_message_of_a_stream_costs_as_a_request_does() -> None:
    costs = []
    for count in (1, 11):
        async with serving() as bench:
            client = await bench.connect()
            client.ask(body=message(b"x") * count, head=fields(p_path=BOTH))
            assert (await client.answer())[1] == message(b"x") * count
            (connection,) = bench.server.connections
            costs.append(connection.http2.cost)
    assert costs[1] - costs[0] == 10 * REQUEST_COST


class Policy(OpenPolicy):
    """Refuses what `refuse` names, and counts."""

    def __init__(self) -> None:
        self.refuse = ""
        self.calls: list[str] = []
        self.finishes: list[str] = []
        self.rejections: list[grpc.StatusCode] = []
        self.closes: list[int] = []
        self.overhead = 0
        self.queue: list[Connection] = []
        self.may = True
        self.resumes = 0

    def admit(self, call: Call) -> Status | None:
        self.calls.append(call.head.path)
        if call.head.path != self.refuse:
            return None
        return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", (("retry", "1"),))

    def finished(self, call: Call) -> None:
        self.finishes.append(call.head.path)

    def rejected(self, call: Call, status: Status) -> Status:
        self.rejections.append(status.code)
        return status

    def may_process(self, connection: Connection) -> bool:
        return self.may

    def may_resume(self, connection: Connection) -> bool:
        self.resumes += 1
        return True

    def wait(self, connection: Connection, work: Work) -> None:
        if work == connection.advance:
            self.queue.append(connection)
        else:  # more of a large response
            asyncio.get_running_loop().call_soon(work)

    def processed(self, connection: Connection, seconds: float, overhead: int) -> None:
        assert seconds >= 0
        self.overhead += overhead

    def closed(self, peer: object, calls: int) -> None:
        self.closes.append(calls)


async def test_input_is_processed_once_the_policy_allows_it() -> None:
    policy: Any = Policy()
    policy.may = False
    async with serving(policy=policy) as bench:
        client = await bench.connect()
        client.ask(1)
        await asyncio.sleep(0.05)
        assert not policy.calls and len(policy.queue) == 1
        policy.may = True
        asyncio.get_running_loop().call_soon(policy.queue.pop().advance)
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def waiting_from_the_start(bench: Bench, policy: Policy) -> tuple[RawClient, Connection]:
    """Return a client whose first request came before its connection was served, and waits."""
    policy.may = False
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    request = header_frames(1, block(fields())) + frame(DATA, END_STREAM, 1, message())
    ours.send(PREFACE + settings({}) + request)
    bench.server.serve(theirs, None)
    client = RawClient(*await asyncio.open_connection(sock=ours))
    bench.clients.append(client)
    async with asyncio.timeout(5.0):
        while not policy.queue:  # noqa: ASYNC110 - the policy is the test's own
            await asyncio.sleep(0.001)
    (connection,) = policy.queue
    return client, connection


async def test_input_of_a_queued_connection_is_processed_after_it() -> None:
    policy: Any = Policy()
    async with serving(policy=policy) as bench:
        client, connection = await waiting_from_the_start(bench, policy)
        client.ask(3)
        await asyncio.sleep(0.05)
        assert not policy.calls and policy.queue == [connection]
        policy.may = True
        asyncio.get_running_loop().call_soon(connection.advance)
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        assert (await client.answer(3))[0]["grpc-status"] == "0"


async def test_a_new_connection_that_waits_is_not_read() -> None:
    policy: Any = Policy()
    async with serving(policy=policy) as bench:
        client, connection = await waiting_from_the_start(bench, policy)
        client.writer.transport.set_write_buffer_limits(high=0)
        client.send(bytes(8 * 2**20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.writer.drain()
        assert policy.queue == [connection]
        client.writer.transport.abort()


@pytest.mark.interpreted
async def test_an_unexpected_error_after_a_wait_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy: Any = Policy()
    policy.may = False
    async with serving(policy=policy) as bench:
        client = await bench.connect()
        client.ask(1)
        await asyncio.sleep(0.05)
        (connection,) = policy.queue

        def fail(*_: object) -> bool:
            raise KeyError("a bug")

        monkeypatch.setattr(connection.http2, "receive", fail)
        with pytest.raises(KeyError):
            connection.advance()
        await client.ends()
        assert policy.closes == [0]


async def test_a_handler_waits_for_the_policy_before_each_message() -> None:
    policy: Any = Policy()
    async with serving(policy=policy) as bench:
        client = await bench.connect()
        client.ask(1, message(b"1") * 3, head=fields(p_path=BOTH))
        assert (await client.answer(1))[1] == message(b"1") * 3
        assert policy.resumes == 3  # the end is read too


async def test_frames_without_a_call_are_overhead() -> None:
    policy: Any = Policy()
    async with serving(policy=policy) as bench:
        client = await bench.connect()
        for number in range(1, 41, 2):
            client.ask(number)
            await client.answer(number)
        before = policy.overhead
        assert before <= 2
        for _ in range(100):
            client.send(f.frame(f.PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1])))
        client.ask(41)
        await client.answer(41)
        assert policy.overhead - before > 50


async def test_a_connection_that_waits_ends_with_its_peer() -> None:
    policy: Any = Policy()
    policy.may = False
    async with serving(policy=policy) as bench:
        client = await bench.connect()
        client.ask(1)
        await asyncio.sleep(0.05)
        client.writer.close()
        async with asyncio.timeout(5):
            while not policy.closes:  # noqa: ASYNC110 - it is the thing under test
                await asyncio.sleep(0.001)
        assert policy.closes == [0] and not policy.calls


async def test_an_answer_is_sent_only_once_the_kernel_has_all_of_it() -> None:
    async with serving(policy=(policy := cast("Any", Policy()))) as bench:
        client = await bench.connect(hello=False)
        client.send(f.PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**31 - 1}))
        client.send(f.window_update(0, 2**30))
        sent: list[int] = []
        bench.echo.before_answer = lambda context: context.when_sent(lambda: sent.append(1))
        client.ask(1, message(b"4000000"), head=fields(p_path="/test.Echo/Large"))
        await asyncio.sleep(0.1)
        assert not sent  # no peer reads, and the socket's buffer is full
        await client.answer(1)
        await asyncio.sleep(0.05)
        assert sent == [1] and policy.finishes == ["/test.Echo/Large"]


async def test_a_policy_admits_on_the_headers_and_sees_each_end_once() -> None:
    policy: Any = Policy()
    policy.refuse = "/test.Echo/Large"
    async with serving(policy=policy) as bench:
        client = await bench.connect(peer="who")
        client.ask(1, body=b"", end=False, head=fields(p_path="/test.Echo/Large"))
        found, _ = await client.answer(1)
        assert (found["grpc-status"], found["grpc-message"], found["retry"]) == (
            "8",
            "too much",
            "1",
        )
        client.ask(3)
        await client.answer(3)
        assert bench.echo.contexts[0].connection.peer == "who"
        client.ask(5, head=fields(p_path="/test.Echo/Slow"))
        client.send(f.rst_stream(5, 8))
        client.ask(7, head=fields(p_path="/no/such"))
        await client.answer(7)
        await asyncio.sleep(0.01)
        assert sorted(policy.calls) == sorted([*policy.finishes, policy.refuse])
        assert len(policy.calls) == 4
        assert policy.rejections == [grpc.StatusCode.UNIMPLEMENTED]


async def test_a_connection_past_its_age_ends_after_its_calls() -> None:
    async with serving() as bench:
        client = await bench.connect(max_age=0.1)
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        await bench.until_running(1)
        assert (await client.goaway())[0] == f.MAX_STREAM_ID
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()
        other = await bench.connect()
        await other.lives()


async def test_a_connection_that_ends_before_its_age_leaves_no_timer() -> None:
    async with serving() as bench:
        client = await bench.connect(max_age=600)
        await client.lives()
        (connection,) = bench.server.connections
        client.writer.close()
        async with asyncio.timeout(5):
            while bench.server.connections:  # noqa: ASYNC110 - it is the thing under test
                await asyncio.sleep(0.001)
        timer = connection._age_timer
        assert timer is not None and timer.cancelled()


async def test_a_peer_may_send_after_the_last_goaway_and_close_itself() -> None:
    """A request that crosses the GOAWAY meets no closed socket: the client reads why instead."""
    async with serving(ServerConfig(timeouts=Timeouts(linger=60.0))) as bench:
        client = await bench.connect()
        await client.until(f.SETTINGS)
        stopping = asyncio.create_task(bench.server.stop(60.0))
        await client.goaway()
        client.send(f.frame(f.PING, f.ACK, 0, b"shutdown"))
        await client.goaway()
        client.ask(1)
        client.send(f.frame(f.PING, 0, 0, b"are you?"))
        frame = await client.until(f.PING)
        while frame.payload != b"are you?":
            frame = await client.until(f.PING)
        assert not stopping.done()
        client.writer.close()
        async with asyncio.timeout(10):
            await stopping


async def test_a_peer_that_stays_after_the_last_goaway_is_closed() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(linger=0.1))) as bench:
        client = await bench.connect()
        await client.until(f.SETTINGS)
        async with asyncio.timeout(10):
            await bench.server.stop(60.0)
        await client.ends()


async def test_a_shutdown_serves_open_calls_and_those_on_their_way() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        await client.until(f.SETTINGS)
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(bench.server.stop(5.0))
        last, code, _ = await client.goaway()
        assert (last, code) == (f.MAX_STREAM_ID, ErrorCode.NO_ERROR)
        client.ask(3)
        assert (await client.answer(3))[0]["grpc-status"] == "0"
        last, code, _ = await client.goaway()
        assert (last, code) == (3, ErrorCode.NO_ERROR)
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()
        await stopping


async def test_calls_open_after_the_grace_end_as_unavailable() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(graceful_ping=0.01))) as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        await client.writer.drain()
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(bench.server.stop(0.1))
        assert (await client.answer(1))[0]["grpc-status"] == "14"
        await client.ends()
        await stopping
        assert bench.echo.ended == ["slow"]
