"""Answers of the agent, kept in a file, and a servicer that gives them again."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

METHODS: dict[str, type[Message]] = {
    "GetCPUInfo": api.CPUResponse,
    "GetEnv": api.EnvResponse,
    "GetNetworkStatus": api.NetworkStatusResponse,
    "GetPod": api.PodResponse,
    "GetResource": api.ResourceResponse,
    "GetInterfaces": api.InterfacesResponse,
    "GetHugepages": api.HugepagesResponse,
    "GetAll": api.AllResponse,
}
"""The unary methods of v1alpha.NetUtil and the messages that they answer with."""


def write(path: Path, answers: dict[str, bytes]) -> None:
    """Keep serialized answers by method."""
    path.write_text(json.dumps({name: b64encode(one).decode() for name, one in answers.items()}))


def read(path: str) -> dict[str, Message]:
    """Return the answers that `write` kept, as messages."""
    kept = json.loads(Path(path).read_text())
    found = {}
    for name, one in kept.items():
        found[name] = METHODS[name]()
        found[name].ParseFromString(b64decode(one))
    return found


def canned(path: str) -> netutil_pb2_grpc.NetUtilServicer:
    """Return a servicer that answers with the same messages again and again."""
    servicer = netutil_pb2_grpc.NetUtilServicer()  # type: ignore[abstract]  # set below
    for name, message in read(path).items():
        setattr(servicer, name, _giving(message))
    return servicer


def _giving(message: Message) -> Callable[[Any, Any], Awaitable[Message]]:
    async def answer(request: Any, context: Any) -> Message:
        return message

    return answer
