"""The cases of the client programs, and their output. The Python programs share this file.

A result is one JSON object. `code` and `then` are numbers of gRPC statuses; `codes` counts them, or
lists them in the order of the calls. `then` is of a GetPod afterwards, on the same channel.

- unary: GetPod. code, name.
- error: GetEnv of a variable that is not set. code, message; reason and domain of its ErrorInfo.
- large: GetEnv of all variables. code, bytes: of all names and values.
- uploads: at once, 100 GetEnv with a name of 60 000 bytes, 10 with one of 100 000. codes, then.
- watch: Watch, cancelled after a snapshot. name, code, then.
- ended: Watch, a line printed after a snapshot, read to its end. code.
- keepalive: Watch for a time with pings, cancelled. code, then.
- many: 1 000 GetPod at once, on a new connection. codes.
- gzip: GetPod with a compressed request. code, encoding: the trailer `request-encoding`.
- deadline: Watch with a deadline of 0.2 s, read to its end. code.
- metadata: GetPod with metadata `echo-text` and `echo-bytes-bin`. code, initial, trailing: of each
  the text, and the bytes in hexadecimal.
- large_metadata: GetPod with 9 000 bytes of metadata. code, then.
- health: Check of "", of v1alpha.NetUtil, and of a service that is not there. codes, statuses.
- load: a GetHugepages, a GetEnv of all variables and two GetPod at once, over and over until the
  standard input ends; a line printed after the first ones. codes, errors: their texts.
- load_waiting: the same, each call with wait-for-ready.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from netutil.v1alpha import netutil_pb2 as api

MANY = 1000
UPLOADS = (*(60_000,) * 100, *(100_000,) * 10)
DEADLINE_SECONDS = 0.2
KEEPALIVE_SECONDS = 9.0
TIMEOUT_SECONDS = 30.0
PAUSE_SECONDS = 0.001
ECHO = (("echo-text", "a value"), ("echo-bytes-bin", bytes(range(256))))
LARGE_METADATA = (("large", "x" * 9_000),)
SERVICES = ("", "v1alpha.NetUtil", "not.There")


@dataclass(frozen=True)
class Arguments:
    """The arguments of a program."""

    target: str
    case: str
    authority: str | None

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Options of grpcio's channels."""
        found: list[tuple[str, Any]] = []
        if self.authority is not None:
            found.append(("grpc.default_authority", self.authority))
        if self.case == "keepalive":
            found += [("grpc.keepalive_time_ms", 2000), ("grpc.http2.max_pings_without_data", 0)]
        return found


def arguments() -> Arguments:
    target, case, *rest = sys.argv[1:]
    return Arguments(target, case, rest[0] if rest else None)


def show(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)


def code_of(call: Any) -> int:
    return number(call.code())


def number(code: grpc.StatusCode) -> int:
    value: int = code.value[0]
    return value


def described(error: Any) -> dict[str, Any]:
    """Code, message, and what ErrorInfo says."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return {
        "code": code_of(error),
        "message": error.details(),
        "reason": info.reason,
        "domain": info.domain,
    }


def echoed(metadata: Any, prefix: str = "") -> dict[str, str]:
    """The echo in a response's metadata."""
    found = {key: value for key, value in metadata if key.startswith(f"{prefix}echo-")}
    return {
        "text": found[f"{prefix}echo-text"],
        "bytes": found[f"{prefix}echo-bytes-bin"].hex(),
    }


def load(stub: Any) -> list[tuple[Any, Any]]:
    """The methods and requests that are called over and over."""
    pod = (stub.GetPod, api.PodRequest())
    slow = (stub.GetHugepages, api.HugepagesRequest())
    return [slow, (stub.GetEnv, api.EnvRequest()), pod, pod]


@dataclass
class Tally:
    """The results of the calls under load."""

    codes: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def add(self, error: grpc.RpcError | None) -> None:
        self.codes[0 if error is None else code_of(error)] += 1
        if error is not None:
            self.errors.append(str(error))

    def result(self) -> dict[str, Any]:
        return {"codes": dict(self.codes), "errors": self.errors}
