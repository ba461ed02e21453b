"""Watchers in the lab's pods, and what makes something to watch."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.lab import Lab, LabContainer, LabPod

TIMEOUT_SECONDS = 30.0
SCRIPT = """
import json, sys, time
import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc

options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", -1),
           ("grpc.http2.bdp_probe", 0)]
channel = grpc.insecure_channel("unix:/etc/netutil/net.sock", options)
stub = netutil_pb2_grpc.NetUtilStub(channel)
try:
    for answer in stub.Watch(api.WatchRequest(environment=sys.argv[1] == "with")):
        shown = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        print(json.dumps({"at": time.monotonic(), **shown}), flush=True)
        if sys.argv[2] == "slow":
            sys.stdin.readline()
except grpc.RpcError as error:
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            reason = info.reason
    print(json.dumps({"code": error.code().name, "reason": reason}), flush=True)
"""


class Watcher:
    """A process in a pod that watches. What it is sent is read with `next`."""

    def __init__(self, container: LabContainer, *, environment: bool, slow: bool) -> None:
        words = ["with" if environment else "without", "slow" if slow else "fast"]
        self._slow = slow
        self._process = container.spawn(
            [sys.executable, "-c", SCRIPT, *words], stdin=subprocess.PIPE, stderr=None
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def next(self, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """The next snapshot, or what ended the stream. A slow reader reads on only then."""
        line = self._lines.get(timeout=timeout)
        if self._slow and self._process.stdin is not None and "code" not in line:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        return line

    def until(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first snapshot that is enough: one change may come in several steps."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not enough(line := self.next(max(0.1, deadline - time.monotonic()))):
            assert "code" not in line, line
        return line

    def settle(self) -> None:
        """Return when half a second has passed without news: a new link's have come then."""
        while not self.quiet(0.5):
            pass

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for so long."""
        try:
            self._lines.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))


@contextmanager
def watching(
    container: LabContainer, *, environment: bool = False, slow: bool = False
) -> Iterator[Watcher]:
    watcher = Watcher(container, environment=environment, slow=slow)
    try:
        yield watcher
    finally:
        watcher.close()


def ip(container: LabContainer, *lines: str) -> None:
    """Run commands of ip(8) in a pod's network namespace."""
    enter = ["nsenter", "-t", str(container.pid), "-n", "ip", "-force", "-batch", "-"]
    subprocess.run(enter, input="\n".join([*lines, ""]).encode(), check=True)


def set_cpus(container: LabContainer, cpus: str) -> None:
    for directory in container.cgroups:
        if (directory / "cpuset.cpus").exists():
            (directory / "cpuset.cpus").write_text(cpus)


def annotate(lab: Lab, pod: LabPod, key: str, value: str) -> None:
    pod.annotations[key] = value
    lab.write_pod_list()


def link(snapshot: dict[str, Any], name: str = "eth0") -> dict[str, Any]:
    """A live link of a snapshot."""
    found: dict[str, Any] = next(
        one["link"]
        for one in snapshot["snapshot"]["interfaces"]["interfaces"]
        if one["link"].get("index") and (one.get("name") or name) == name
    )
    return found


def addresses(snapshot: dict[str, Any]) -> list[str]:
    return [one["address"] for one in link(snapshot).get("addresses", ())]
