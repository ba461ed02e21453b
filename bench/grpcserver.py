"""The agent's own gRPC server with the echo's ready-made answers, and nothing of the agent.

`python -m bench.grpcserver SOCKET ANSWERS`. What it costs is the least that a call of the agent
can cost; the rest of a call is connections, api and collect.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from netutil.agent.grpcserver import Server
from netutil.v1alpha import netutil_pb2_grpc

from bench.answers import canned

_BACKLOG = 128


async def serve(path: str, answers: str) -> None:
    """Serve until the process is killed."""
    server = Server()
    # Generated code names grpc.Server; all that it needs are the two methods for handlers.
    netutil_pb2_grpc.add_NetUtilServicer_to_server(canned(answers), server)  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        while True:
            accepted, _ = await server.loop.sock_accept(listener)
            server.serve(accepted, None)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
