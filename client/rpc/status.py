"""From a failed gRPC call to the error that the caller gets.

The agent sends a google.rpc.Status in the trailing metadata, with an ErrorInfo
of domain "netutil" and, for UNAVAILABLE, a RetryInfo (google/rpc/error_details.proto).
The metadata came over the socket: anything malformed in it is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from netutil.client.errors import KINDS, NetUtilError

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "netutil"


class _Code(Protocol):
    @property
    def name(self) -> str: ...


class Failure(Protocol):
    """The part of a grpc.Call or a grpc.aio.AioRpcError that is read here."""

    def code(self) -> Any: ...  # noqa: D102
    def details(self) -> str | None: ...  # noqa: D102
    def trailing_metadata(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Details:
    """What the agent says about a failure, beyond code and sentence."""

    reason: str = ""
    read: str = ""
    advice: str = ""
    retry_after_seconds: float | None = None


def error_from_status(failure: Failure) -> NetUtilError:
    """The error that says what a failed call says; its class follows the status code."""
    code: _Code = failure.code()
    details = _details(failure.trailing_metadata() or ())
    # A server that stops cancels what it has not finished; the agent itself never says so.
    name = "UNAVAILABLE" if code.name == "CANCELLED" and not details.reason else code.name
    return KINDS.get(name, NetUtilError)(
        failure.details() or f"the agent answered {code.name}",
        code.name,
        reason=details.reason,
        read=details.read,
        advice=details.advice,
        retry_after_seconds=details.retry_after_seconds,
    )


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> Details:
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return parse_details(value)
    return Details()


def parse_details(serialized: bytes) -> Details:
    """Details from a serialized google.rpc.Status; empty ones if it is not well-formed."""
    # Loaded here: most processes never see an error.
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    error_details = import_module("google.rpc.error_details_pb2")
    info, retry = error_details.ErrorInfo(), error_details.RetryInfo()
    retry_after_seconds = None
    try:
        for detail in import_module("google.rpc.status_pb2").Status.FromString(serialized).details:
            if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
                delay = retry.retry_delay
                retry_after_seconds = max(0.0, delay.seconds + delay.nanos / 1e9)
            elif detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
    except DecodeError:
        return Details()
    if info.domain != _DOMAIN:
        return Details(retry_after_seconds=retry_after_seconds)
    return Details(
        reason=info.reason,
        read=info.metadata.get("read", ""),
        advice=info.metadata.get("advice", ""),
        retry_after_seconds=retry_after_seconds,
    )
