"""What gRPC puts into HTTP/2 (doc/PROTOCOL-HTTP2.md of grpc/grpc): prefix, timeout, texts. Pure."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable

PREFIX_BYTES = 5
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PERCENT = re.compile(rb"[^ -$&-~]")
_MAX_MESSAGE_BYTES = 2048
"""Of grpc-message: all trailers together stay below the 8 KiB that clients take."""
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
ENCODINGS = ("identity", "deflate", "gzip")
"""What a request may be compressed with, as grpc-accept-encoding names it."""


class InflateError(Exception):
    """A compressed message is not what its encoding says."""


class TooLargeError(Exception):
    """A message is larger than the limit, compressed or inflated."""


def message(payload: bytes) -> bytes:
    """Return a message that is not compressed, with its prefix."""
    # A join of more than 1 MiB gives the interpreter's lock to other threads, a sum of bytes never.
    return b"".join((b"\0", len(payload).to_bytes(4, "big"), payload))


class EncodedMessage:
    """A response message that was serialized before.

    A handler returns or writes it in the place of a message, as often as it likes. `framed` are
    its bytes with their prefix.
    """

    __slots__ = ("framed",)

    def __init__(self, body: bytes) -> None:
        self.framed = message(body)

    @property
    def body(self) -> bytes:
        """Return the serialized message."""
        return self.framed[PREFIX_BYTES:]

    def ByteSize(self) -> int:  # noqa: N802 - as protobuf's messages
        """Return the size of the serialized message in bytes."""
        return len(self.framed) - PREFIX_BYTES


def parse_timeout(text: str) -> float | None:
    """Return the seconds of grpc-timeout, None if it is not well-formed.

    One to eight digits and a unit, whose case counts.
    """
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _UNIT_SECONDS[match[2]] if match else None


def encode_status_message(text: str) -> bytes:
    """Return a text as grpc-message: UTF-8, %XX for `%` and what is not printable ASCII."""
    encoded = text.encode("utf-8", errors="replace")
    encoded = encoded[:_MAX_MESSAGE_BYTES].decode("utf-8", errors="ignore").encode("utf-8")
    return _PERCENT.sub(lambda match: b"%%%02X" % match[0][0], encoded)


def decode_binary(value: bytes) -> list[bytes]:
    """Return the values of a header whose name ends in -bin: base64, padded or not.

    A comma joins several. Raises `ValueError` for what is no base64.
    """
    found = []
    for part in value.split(b","):
        padded = part.strip() + b"=" * (-len(part.strip()) % 4)
        try:
            found.append(base64.b64decode(padded, validate=True))
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    return found


def encode_binary(value: bytes) -> bytes:
    """Return base64 without padding."""
    return base64.b64encode(value).rstrip(b"=")


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """Return an inflated message of at most `limit` bytes.

    Raises `TooLargeError` before more than `limit` bytes are made, `InflateError` for data that
    is not one whole stream of the encoding.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        found = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise InflateError(str(error)) from error
    if len(found) > limit:
        raise TooLargeError
    if not inflater.eof or inflater.unused_data:
        raise InflateError("not one whole compressed message")
    return found


def metadata_fields(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Return metadata as header fields. Raises `ValueError` for what HTTP/2 bars."""
    fields = []
    for key, value in metadata:
        name = key.lower().encode("ascii")
        if not _NAME.fullmatch(name) or (
            name.startswith(b"grpc-") and name != b"grpc-status-details-bin"
        ):
            raise ValueError(f"{key!r} is no name of metadata")
        if name.endswith(b"-bin"):
            raw = value if isinstance(value, bytes) else value.encode("utf-8")
            fields.append((name, encode_binary(raw)))
            continue
        text = value if isinstance(value, bytes) else value.encode("ascii")
        if not _VALUE.fullmatch(text):
            raise ValueError(f"the value of {key!r} is not printable ASCII")
        fields.append((name, text))
    return fields


_NAME = re.compile(rb"[0-9a-z_.-]+")
_VALUE = re.compile(rb"[ -~]*")
