"""Frames are found wherever a stream of bytes is cut, and counted for what they cost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.door.frames import PREFACE_BYTES, FrameWalk

STREAM_FRAMES = 8
HEADERS, DATA, PING, CONTINUATION = 1, 0, 6, 9
PREFACE = bytes(PREFACE_BYTES)


def frame(kind: int, size: int) -> bytes:
    return size.to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 1]) + bytes(size)


def count(pieces: list[bytes]) -> float:
    """What a stream counts as, without the parts of a frame that its bytes are."""
    walk = FrameWalk(STREAM_FRAMES)
    total = 0.0
    for piece in pieces:
        passed, frames = walk.walk(piece, math.inf)
        assert passed == len(piece)
        total += frames - len(piece) / 1024
    return total


def test_each_frame_counts_as_one_and_one_that_opens_a_stream_as_several() -> None:
    stream = PREFACE + frame(PING, 8) * 10 + frame(HEADERS, 50) * 2 + frame(DATA, 5)
    assert count([stream]) == pytest.approx(10 + 2 * (STREAM_FRAMES + 50 / 128) + 1)


def test_bytes_count_too() -> None:
    _, frames = FrameWalk(STREAM_FRAMES).walk(PREFACE + frame(DATA, 16384), math.inf)
    assert 19 < frames < 20


def test_a_piece_counts_as_three_however_little_is_in_it() -> None:
    assert count([bytes([byte]) for byte in PREFACE + frame(PING, 8)]) == 3 * (PREFACE_BYTES + 17)


@given(
    st.lists(st.tuples(st.sampled_from((HEADERS, DATA, PING, 0xEE)), st.integers(0, 40))),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_frames_are_found_wherever_the_stream_is_cut(
    frames: list[tuple[int, int]], sizes: list[int]
) -> None:
    stream, walk = PREFACE + b"".join(frame(kind, size) for kind, size in frames), None
    walk, at, number, found = FrameWalk(STREAM_FRAMES), 0, 0, 0.0
    while at < len(stream):
        piece = stream[at : at + sizes[number % len(sizes)]]
        passed, counted = walk.walk(piece, math.inf)
        assert passed == len(piece)
        begun = counted - passed / 1024
        found += begun
        at, number = at + passed, number + 1
    wanted = sum(STREAM_FRAMES + size / 128 if kind == HEADERS else 1 for kind, size in frames)
    assert (
        wanted - 0.001 <= found <= wanted + 3 * number + 0.001
    )  # a piece counts as three at least


def test_a_request_counts_with_its_last_byte() -> None:
    walk, stream = FrameWalk(STREAM_FRAMES), PREFACE + frame(HEADERS, 50)
    _, before = walk.walk(stream[:-1], math.inf)
    _, last = walk.walk(stream[-1:], math.inf)
    assert before == pytest.approx(3, abs=0.1)
    assert last == pytest.approx(STREAM_FRAMES + 50 / 128, abs=0.1)


def test_what_is_over_the_credit_stays_and_begins_with_a_frame() -> None:
    walk, stream = FrameWalk(STREAM_FRAMES), PREFACE + frame(PING, 8) * 100
    passed, frames = walk.walk(stream, 10)
    assert (passed - PREFACE_BYTES) % len(frame(PING, 8)) == 0
    assert 10 <= frames < 11 + 1
    rest, _ = walk.walk(stream[passed:], math.inf)
    assert passed + rest == len(stream)


def test_with_any_credit_left_something_passes() -> None:
    walk = FrameWalk(STREAM_FRAMES)
    walk.walk(PREFACE, math.inf)
    passed, _ = walk.walk(frame(HEADERS, 16384), 0.01)
    assert passed == 9 + 16384


def test_a_header_block_counts_by_its_bytes() -> None:
    block = frame(HEADERS, 16384) + frame(CONTINUATION, 16384)
    assert count([PREFACE + block]) == STREAM_FRAMES + 1 + 32768 / 128


@given(st.lists(st.integers(1, 500), min_size=1))
def test_a_header_block_is_what_headers_and_their_continuation_bring(sizes: list[int]) -> None:
    walk = FrameWalk(STREAM_FRAMES)
    walk.walk(PREFACE + frame(HEADERS, 900) + frame(DATA, 7), math.inf)
    first, *more = sizes
    stream = frame(HEADERS, first) + b"".join(frame(CONTINUATION, size) for size in more)
    walk.walk(stream, math.inf)
    assert walk.header_block_bytes == sum(sizes)
