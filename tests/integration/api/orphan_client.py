"""A process connects, forks, and ends; its child goes on over the inherited connection.

gRPC does not carry a connection over a fork, so the parent only connects and a
small relay in the child joins its gRPC channel to the inherited socket.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import tempfile
import threading
from pathlib import Path


def _relay(listener: socket.socket, inherited: socket.socket) -> None:
    accepted, _ = listener.accept()
    while True:
        readable, _, _ = select.select([accepted, inherited], [], [])
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            (inherited if source is accepted else accepted).sendall(data)


def _child(inherited: socket.socket, parent_exited: int, answer: int) -> None:
    os.read(parent_exited, 1)
    try:
        os.write(answer, json.dumps(_ask(inherited)).encode())
    finally:
        os._exit(0)


def _ask(inherited: socket.socket) -> dict[str, object]:
    import grpc
    from netutil.v1alpha import netutil_pb2, netutil_pb2_grpc

    folder = tempfile.mkdtemp()
    path = str(Path(folder, "s"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_relay, args=(listener, inherited), daemon=True).start()
    stub = netutil_pb2_grpc.NetUtilStub(grpc.insecure_channel(f"unix:{path}"))
    try:
        cpu = stub.GetCPUInfo(netutil_pb2.CPURequest(), timeout=30)
    except grpc.RpcError as error:
        return {"refused": error.code().name, "message": error.details()}
    finally:
        Path(path).unlink()
        Path(folder).rmdir()
    pod = stub.GetPod(netutil_pb2.PodRequest(), timeout=10)
    try:
        stub.GetEnv(netutil_pb2.EnvRequest(), timeout=10)
        env = "answered"
    except grpc.RpcError as error:
        env = error.code().name
    return {
        "cpuset": cpu.cpuset,
        "has_affinity": cpu.HasField("affinity"),
        "pod": pod.name,
        "env": env,
    }


def main(path: str, *, seen: bool) -> None:
    """Run the parent in a process of its own, and print the answer to the orphan.

    Without `seen` the parent does not wait for the agent: it has exited before the
    agent, which the test has stopped, can look at it. The orphan asks after the
    end of the standard input.
    """
    reading, writing = os.pipe()
    held, closing = os.pipe()
    parent = os.fork()
    if parent == 0:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        if seen:
            # The agent's greeting (SETTINGS) says that it has let this process in.
            connection.recv(1, socket.MSG_PEEK)
        if os.fork() == 0:
            os.close(closing)
            _child(connection, held, writing)
        os._exit(0)
    os.waitpid(parent, 0)
    if not seen:
        sys.stderr.write("exited\n")
        sys.stderr.flush()
        sys.stdin.read()
    os.close(closing)
    os.close(writing)
    sys.stdout.write(os.read(reading, 65536).decode())


if __name__ == "__main__":
    main(sys.argv[1], seen="unseen" not in sys.argv)
