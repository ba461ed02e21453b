"""The yardstick: a bare `grpc.aio` server with the agent's methods and ready-made answers.

`python -m bench.echo SOCKET ANSWERS`. ANSWERS is what `bench.answers` wrote: what the agent
answered to each method, so that both serve messages of the same kind and size. It identifies
no caller and reads nothing: what grpcio and protobuf cost by themselves.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from netutil.v1alpha import netutil_pb2_grpc

from bench.answers import canned

OPTIONS = (("grpc.so_reuseport", 0),)


async def serve(socket: str, answers: str) -> None:
    """Serve until the process is killed."""
    server = grpc.aio.server(options=OPTIONS)
    netutil_pb2_grpc.add_NetUtilServicer_to_server(canned(answers), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
