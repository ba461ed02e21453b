"""GRPC.md 1.9, 1.12: what a peer makes the engine do is charged, and what it makes it keep bounded.

The work is counted in calls of Python functions, not in seconds.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from netutil.agent.grpcserver import ServerConfig, StreamLimits
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.engine import Echoing, calls, kinds
from tests.support.grpcserver.raw import fields
from tests.support.grpcserver.requests import block, headers
from tests.support.grpcserver.sessions import mutated, session
from tests.support.http2 import message

HELLO = f.PREFACE + f.settings_frame({})
_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def opened(config: ServerConfig | None = None, *, hello: bytes = HELLO) -> Echoing:
    echo = Echoing(config)
    echo.http2.receive(hello)
    echo.take()
    echo.http2.cost = 0
    return echo


def in_frames(data: bytes, stream: int = 1) -> bytes:
    """One header block in as many frames as it takes."""
    parts = [data[at : at + 16_000] for at in range(0, len(data), 16_000)]
    sent = headers(stream, parts[0], f.END_HEADERS if len(parts) == 1 else 0)
    for part in parts[1:]:
        sent += f.frame(f.CONTINUATION, f.END_HEADERS if part is parts[-1] else 0, stream, part)
    return sent


def huffman(size: int) -> bytes:
    """A literal field whose value is compressed to about `size` bytes."""
    text = _HUFFMAN.encode(b"a" * (size * 8 // 5))
    length = len(text) - 0x7F
    out = bytearray(b"\0\1x\xff")
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + text


FLOODS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "PING": (lambda n: f.frame(f.PING, f.ACK, 0, bytes(8)), 1),
    "SETTINGS": (lambda n: f.settings_frame({}), 1),
    "SETTINGS with values": (lambda n: f.settings_frame({9: 1, 10: 1, 11: 1}), 4),
    "PRIORITY": (lambda n: f.frame(f.PRIORITY, 0, 1, bytes(5)), 1),
    "an unknown frame": (lambda n: f.frame(0xFA, 0, 0, b"x"), 1),
    "empty DATA": (lambda n: f.frame(f.DATA, 0, 1), 1),
    "WINDOW_UPDATE": (lambda n: f.window_update(0, 1), 1),
    "a request that is refused": (lambda n: headers(2 * n + 1, block(p_path=None)), 16),
    "a request that is reset": (lambda n: headers(2 * n + 1) + f.rst_stream(2 * n + 1, 8), 18),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_each_frame_is_charged_and_costs_the_same_as_the_first(flood: str) -> None:
    make, cost = FLOODS[flood]
    echo = opened(ServerConfig(streams=StreamLimits(max_errors=10**6)))
    echo.http2.receive(headers(1))
    first, second = (
        b"".join(make(number) for number in range(begin, begin + 400)) for begin in (1, 401)
    )
    echo.http2.cost = 0
    work = calls(lambda: echo.http2.receive(first))
    echo.take()
    assert echo.http2.cost >= 400 * cost
    assert calls(lambda: echo.http2.receive(second)) <= 1.1 * work + 10
    assert work <= 100 * echo.http2.cost


def test_a_refused_stream_is_charged_like_a_request_and_a_reset() -> None:
    echo = opened(ServerConfig(streams=StreamLimits(max_concurrent=1)))
    echo.http2.receive(headers(1))
    echo.http2.cost = 0
    echo.http2.receive(b"".join(headers(stream) for stream in range(3, 803, 2)))
    assert echo.http2.cost >= 400 * 17
    assert list(echo.http2.streams) == [1]


def test_a_block_is_charged_for_what_decoding_it_takes() -> None:
    """Huffman decoding takes many steps a byte, in Python."""
    echo = opened()
    echo.http2.receive(in_frames(block() + huffman(30_000)))
    assert not echo.http2.closing
    assert echo.http2.cost >= 30_000 // 16


def test_trailers_are_charged_like_other_blocks() -> None:
    echo = opened()
    echo.http2.receive(headers(1))
    echo.http2.cost = 0
    sent = in_frames(huffman(30_000))
    echo.http2.receive(sent[:4] + bytes([sent[4] | f.END_STREAM]) + sent[5:])
    assert not echo.http2.closing
    assert echo.http2.cost >= 30_000 // 16


def test_a_request_seen_before_is_not_charged_for_decoding_again() -> None:
    echo = opened()
    compressed = block() + huffman(300)
    echo.http2.receive(headers(1, compressed) + f.rst_stream(1, 8))
    first, echo.http2.cost = echo.http2.cost, 0
    echo.http2.receive(headers(3, compressed) + f.rst_stream(3, 8))
    assert echo.http2.cost < first


def test_a_change_of_all_streams_windows_is_charged_by_streams() -> None:
    echo = opened(hello=f.PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}))
    for stream in range(1, 129, 2):
        body = f.frame(f.DATA, f.END_STREAM, stream, message(b"x" * 100))
        echo.http2.receive(headers(stream) + body)
    assert len(echo.http2.streams) == 64
    echo.http2.cost = 0
    sent = b"".join(f.settings_frame({f.INITIAL_WINDOW_SIZE: size}) for size in range(1, 51))
    work = calls(lambda: echo.http2.receive(sent))
    assert echo.http2.cost >= 50 * 64
    assert work <= 30 * echo.http2.cost


def test_an_engine_keeps_little_of_many_requests() -> None:
    """Each request is another one, as large as it may be, of static fields alone."""
    echo = opened()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            stream = 2 * number + 1
            name = b"x%d" % number
            many = encode_block(fields()) + b"\0" + bytes([len(name)]) + name + b"\1v"
            echo.http2.receive(headers(stream, many + b"\x90" * 150) + f.rst_stream(stream, 8))
            echo.http2.receive(
                headers(stream + 1000, block(large="v" * 7000)) + f.rst_stream(stream + 1000, 8)
                if number == 99
                else b""
            )
            echo.take()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024


@pytest.mark.parametrize("part", range(4))
def test_mutated_sessions_end_in_answers_or_goaway_at_fair_cost(part: int) -> None:
    for number in range(300):
        choose = random.Random(300 * part + number)  # noqa: S311 - it only has to vary
        data = f.PREFACE + mutated(session(choose), choose)
        echo = Echoing()
        pieces = []
        left = data
        while left:
            size = choose.choice((1, 9, 100, 16_384))
            pieces.append(left[:size])
            left = left[size:]

        def receive(echo: Echoing = echo, pieces: list[bytes] = pieces) -> None:
            for piece in pieces:
                echo.http2.receive(piece)

        assert calls(receive) <= 300 + 60 * len(pieces) + 12 * len(data) + 120 * echo.http2.cost
        held = sum(stream.pending_bytes for stream in echo.http2.streams.values())
        held += sum(map(len, echo.bodies.values()))
        assert held <= 2 * len(data)
        assert len(echo.http2.streams) <= 64
        out = echo.take()
        assert len(out) <= 20 * len(data) + 1000
        sent_goaway = f.GOAWAY in kinds(data[len(f.PREFACE) :])
        assert not echo.http2.closing or sent_goaway or f.GOAWAY in kinds(out)


def test_a_string_that_cannot_fit_ends_its_call_undecoded() -> None:
    echo = opened()
    echo.http2.cost = 0
    for frame in (huffman(60_000),):
        echo.http2.receive(in_frames(frame))
    assert not echo.http2.closing
    assert echo.http2.cost < 200
    echo.http2.receive(headers(3))
    assert 3 in echo.http2.streams
