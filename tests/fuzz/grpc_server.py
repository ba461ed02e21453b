"""Input of a pod to the gRPC server: frames, and header blocks."""

from __future__ import annotations

from hpack import Decoder
from hpack.exceptions import HPACKError
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import (
    BlockDecoder,
    BlockError,
    BlockTooCostlyError,
    Request,
    encode_block,
)

from tests.fuzz.target import Target
from tests.support.grpcserver.engine import Echoing, kinds
from tests.support.grpcserver.raw import fields
from tests.support.http2 import message

_MAX_FIELD_BYTES = 16 * 1024
_MAX_STREAMS = 64


def _receive(data: bytes) -> bytes:
    """Send the input in two reads: its first byte says how long the first one is."""
    echo = Echoing()
    sent = f.PREFACE + f.settings_frame({}) + data[1:]
    at = len(sent) * data[0] // 255 if data else 0
    echo.http2.receive(sent[:at])
    echo.http2.receive(sent[at:])
    out = echo.take()
    assert len(echo.http2.streams) <= _MAX_STREAMS
    assert set(echo.bodies) <= set(echo.http2.streams)
    if echo.http2.closing:
        assert f.GOAWAY in kinds(out) or f.GOAWAY in kinds(data[1:])
    else:
        assert echo.http2.cost >= len(kinds(data[1:]))
    held = sum(stream.pending_bytes for stream in echo.http2.streams.values())
    assert held + sum(map(len, echo.bodies.values())) <= 2 * len(data)
    return out


def _decode(data: bytes) -> Request:
    decoder = BlockDecoder(_MAX_FIELD_BYTES, 8 * _MAX_FIELD_BYTES)
    first = decoder.request(data)
    decoder.request(encode_block(fields()))
    try:
        decoder.request(data)
    except BlockError:
        # It may refer to fields of the table that it has itself pushed out.
        assert decoder.work
    return first


def _decode_holds(data: bytes, found: Request) -> None:
    """The library finds the same fields, where both find any."""
    library = Decoder(8 * _MAX_FIELD_BYTES)
    library.max_allowed_table_size = library.header_table_size
    try:
        expected = [(bytes(name), bytes(value)) for name, value in library.decode(data, raw=True)]
    except HPACKError as error:
        raise AssertionError(f"the library refuses it: {error}") from error
    if found.malformed or found.oversized:
        return
    regular = [(name, value.strip(b" \t")) for name, value in expected if name[:1] != b":"]
    assert regular == list(found.fields)


def targets() -> tuple[Target, ...]:
    block = encode_block(fields())
    head = f.frame(f.HEADERS, f.END_HEADERS, 1, block)
    body = f.frame(f.DATA, f.END_STREAM, 1, message(b"x"))
    begun = f.frame(f.HEADERS, 0, 3, block[:9])
    rest = f.frame(f.CONTINUATION, f.END_HEADERS, 3, block[9:])
    other = (
        f.window_update(0, 100),
        f.window_update(1, 100),
        f.rst_stream(1, 8),
        f.frame(f.PING, 0, 0, bytes(8)),
        f.frame(f.PRIORITY, 0, 1, bytes(5)),
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}),
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 100_000, f.HEADER_TABLE_SIZE: 0}),
        f.goaway(0, 0),
        f.frame(f.DATA, f.PADDED, 1, b"\2x\0\0"),
    )
    literal = b"\x40\1a\1b" + b"\x0f\x2b\x83\x1c\x64\x5f" + b"\x10\1c\0"
    return (
        Target(
            "http2",
            _receive,
            (
                b"\xff" + head + body,
                b"\x80" + head + b"".join(other) + body,
                b"\x40" + begun + rest + f.frame(f.DATA, f.END_STREAM, 3, message(bytes(300))),
                b"\0" + other[5] + head + body + other[1] * 3 + other[6],
            ),
            expected=(),
            words=(head, body, begun, rest, *other),
            # SETTINGS of nine bytes are acknowledged with nine, and a window may let data go.
            most_times=20,
        ),
        Target(
            "headers",
            _decode,
            (
                block,
                block + literal,
                b"\x3f\xe1\x1f" + block + literal + b"\xbe\xbf",
                b"\x20" + block,
            ),
            expected=(BlockError, BlockTooCostlyError),
            holds=_decode_holds,
            words=(literal, b"\x82\x86\x84", b"\x3f\xe1\x1f", b"\x20", b"\xbe", b"\x7f\xff"),
            # A byte may be a reference to a field of the table.
            most_times=4200,
        ),
    )
