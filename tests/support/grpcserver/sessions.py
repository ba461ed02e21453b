"""What clients send: sessions without a mistake, and mutated sessions."""

from __future__ import annotations

import random

from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.raw import fields
from tests.support.grpcserver.requests import headers
from tests.support.http2 import message


def session(choose: random.Random) -> list[bytes]:
    """The frames of a client that does nothing wrong."""
    sent = [f.settings_frame({f.INITIAL_WINDOW_SIZE: choose.choice((0, 10, 65_535))})]
    for number in range(choose.randrange(1, 12)):
        stream = 2 * number + 1
        head = encode_block([*fields(), (b"x", b"v" * choose.randrange(300))])
        whole = message(choose.randbytes(choose.choice((0, 5, 3000))))
        at = choose.randrange(len(whole) + 1)
        sent += [
            headers(stream, head[:40], 0),
            f.frame(f.CONTINUATION, f.END_HEADERS, stream, head[40:]),
            f.frame(f.DATA, 0, stream, whole[:at]),
            f.window_update(choose.choice((0, stream)), choose.randrange(1, 9999)),
            f.frame(f.DATA, f.PADDED | f.END_STREAM, stream, b"\3" + whole[at:] + bytes(3)),
        ]
        sent += choose.choices(
            [
                f.frame(f.PING, 0, 0, bytes(8)),
                f.frame(f.PRIORITY, 0, stream, bytes(5)),
                f.rst_stream(stream, 8),
                f.settings_frame({f.INITIAL_WINDOW_SIZE: choose.randrange(9999)}),
                f.frame(0xFA, 1, stream, b"unknown"),
            ],
            k=choose.randrange(3),
        )
    return sent


def mutated(sent: list[bytes], choose: random.Random) -> bytes:
    """The same with frames twice, left out, in another order, and bytes changed or missing."""
    sent = list(sent)
    for _ in range(choose.randrange(1, 6)):
        at = choose.randrange(len(sent))
        frame = bytearray(sent[at])
        if len(frame) < f.HEADER_BYTES:
            continue
        match choose.randrange(7):
            case 0:
                frame[choose.randrange(len(frame))] ^= 1 << choose.randrange(8)
            case 1:
                frame = frame[: choose.randrange(len(frame))]
            case 2:
                frame *= choose.choice((2, 30))
            case 3:
                sent.insert(choose.randrange(len(sent)), bytes(frame))
            case 4:
                frame.clear()
            case 5:
                frame[4] ^= 1 << choose.randrange(8)
            case _:
                begin = choose.randrange(len(frame))
                frame[begin : begin + 4] = choose.randbytes(4)
        sent[at] = bytes(frame)
    return b"".join(sent)
