"""Asks the agent from within a pod, and hands back every byte that came. Runs in a pod.

Standard input: {"before", "between", "calls", "fd", "socket", "go_ahead"}, standard output: a list
of {code, reason, message, answer, bytes}, one for each call. `before` is Python that runs before
connect(2), `between` between connect(2) and the calls; `fd` is a connected socket to use instead.
With `go_ahead` it says "connected" and waits for a line before `between`.

A relay between gRPC and the agent keeps what the agent sends. The tests thus see that a secret is
in no byte of an answer, also in bytes that gRPC drops. All is imported at once, because `before`
may take on ids that may not read this Python.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import grpc._channel  # or gRPC imports it when its files are out of reach
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

SECONDS = 20
REQUESTS = {
    "GetCPUInfo": api.CPURequest,
    "GetEnv": api.EnvRequest,
    "GetNetworkStatus": api.NetworkStatusRequest,
    "GetResource": api.ResourceRequest,
    "GetInterfaces": api.InterfacesRequest,
    "GetHugepages": api.HugepagesRequest,
    "GetPod": api.PodRequest,
    "GetAll": api.AllRequest,
}
NAMES = {module.__name__: module for module in (ctypes, json, os, socket, subprocess, sys, time)}
"""What `before` and `between` find."""


class Relay:
    """Passes bytes between a listening socket's first client and the agent."""

    def __init__(self, agent: socket.socket, listener: socket.socket) -> None:
        self._agent = agent
        self._listener = listener
        self.came = bytearray()

    def run(self) -> None:
        client, _ = self._listener.accept()
        while True:
            for source in select.select([client, self._agent], [], [])[0]:
                try:
                    data = source.recv(1 << 16)
                except OSError:
                    data = b""
                if source is self._agent:
                    self.came += data
                if not data:
                    client.close()
                    return
                (self._agent if source is client else client).sendall(data)


def ask(stub: Any, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of one call."""
    code, reason, sentence, answer, came = "OK", "", "", {}, b""
    try:
        found = getattr(stub, method)(REQUESTS[method](**fields), timeout=SECONDS)
        answer = json_format.MessageToDict(found, preserving_proto_field_name=True)
        came = found.SerializeToString()
    except grpc.RpcError as error:
        code, sentence = error.code().name, error.details() or ""
        status = rpc_status.from_call(error)
        if status is not None:
            came = status.SerializeToString()
            info = error_details_pb2.ErrorInfo()
            for detail in status.details:
                detail.Unpack(info)
            reason = info.reason
    return {
        "code": code,
        "reason": reason,
        "message": sentence,
        "answer": answer,
        "bytes": base64.b64encode(came).decode(),
    }


def ask_all(agent: socket.socket, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the outcomes of calls over a connected socket; the last has all raw bytes too."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, socket.socket(socket.AF_UNIX) as at:
        path = str(Path(folder, "s"))
        at.bind(path)
        at.listen()
        relay = Relay(agent, at)
        threading.Thread(target=relay.run, daemon=True).start()
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
            stub = netutil_pb2_grpc.NetUtilStub(channel)
            outcomes = [ask(stub, method, fields) for method, fields in calls]
    outcomes[-1]["raw"] = base64.b64encode(bytes(relay.came)).decode()
    return outcomes


def main() -> None:
    task = json.loads(sys.stdin.readline())
    names: dict[str, Any] = {**NAMES, "task": task}
    exec(task["before"], names)  # noqa: S102 - the test's own
    if task["fd"] is None:
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(task["socket"])
    else:
        agent = socket.socket(fileno=task["fd"])
    names["agent"] = agent
    if task["go_ahead"]:
        print("connected", flush=True)
        sys.stdin.readline()
    exec(task["between"], names)  # noqa: S102 - the test's own
    print(json.dumps(ask_all(agent, names["task"]["calls"])), flush=True)


if __name__ == "__main__":
    main()
