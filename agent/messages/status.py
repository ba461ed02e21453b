"""Converts errors to gRPC statuses. No other module does."""

from __future__ import annotations

import math
from functools import lru_cache

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from netutil.agent import errors
from netutil.v1alpha import netutil_pb2 as api

DOMAIN = "netutil"
_STATUSES_KEPT = 256
_CODES: dict[type[errors.AgentError], grpc.StatusCode] = {
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_DETAILS_KEY = "grpc-status-details-bin"
_MAX_TEXT_BYTES = 768
"""So that message and details fit into the 8 KiB of trailers that every gRPC client takes."""


def code_of(error: errors.AgentError) -> grpc.StatusCode:
    """Return the status code of an error, by its class (docs/architecture.md, "Errors")."""
    return next(code for kind, code in _CODES.items() if isinstance(error, kind))


def truncate_utf8(text: str) -> str:
    """Return the beginning of a text, as what a status can carry: UTF-8, and not too long."""
    encoded = text.encode("utf-8", errors="backslashreplace")
    return encoded[:_MAX_TEXT_BYTES].decode("utf-8", errors="ignore")


def trailing_metadata(error: errors.AgentError) -> tuple[tuple[str, bytes], ...]:
    """Return google.rpc.Status with ErrorInfo and, where a retry helps, RetryInfo."""
    nanoseconds = None
    if error.retry_after_seconds is not None:
        # In whole milliseconds, never less: so few statuses differ, and those of limits are kept.
        nanoseconds = math.ceil(error.retry_after_seconds * 1e3) * 1_000_000
    made = _kept_trailers if isinstance(error, errors.QuotaExceeded) else _trailers
    code = code_of(error).value[0]
    return made(code, error.reason, error.message, error.read, error.advice, nanoseconds)


def _trailers(
    code: int, reason: str, sentence: str, read: str, advice: str, retry_nanoseconds: int | None
) -> tuple[tuple[str, bytes], ...]:
    info = error_details_pb2.ErrorInfo(
        domain=DOMAIN,
        reason=reason,
        metadata={"read": truncate_utf8(read), "advice": truncate_utf8(advice)},
    )
    details = [_packed(info)]
    if retry_nanoseconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(retry_nanoseconds)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=code, message=truncate_utf8(sentence), details=details)
    return ((_DETAILS_KEY, status.SerializeToString()),)


_kept_trailers = lru_cache(maxsize=_STATUSES_KEPT)(_trailers)


def part_error(part: str, error: errors.AgentError) -> api.PartError:
    """Return an error as an entry beside the other parts of an answer."""
    return api.PartError(
        part=part,
        code=code_of(error).name,
        reason=error.reason,
        message=truncate_utf8(error.message),
        read=truncate_utf8(error.read),
        advice=truncate_utf8(error.advice),
    )


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
