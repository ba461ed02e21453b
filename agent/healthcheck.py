"""`netutil-agent --check`: a client of the running agent's health service."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 3.0


def check(socket_path: str) -> int:
    """Return 0 if the agent behind the socket says SERVING, else 1 and print why."""
    options = (("grpc.default_authority", "localhost"),)
    with grpc.insecure_channel(f"unix:{socket_path}", options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_SECONDS
            )
        except grpc.RpcError as error:
            print(f"netutil-agent: {socket_path}: {error.details()}", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        print(f"netutil-agent: {socket_path}: {status}", file=sys.stderr)
        return 1
    return 0
