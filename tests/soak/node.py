"""The node of a soak: an agent, its kubelet's doubles, witnesses, and a pod that does its worst."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.fakes.kubelet import Handler, KubeletDouble, serving
from tests.support.lab import Lab, LabAgent, LabContainer, LabPod
from tests.support.lab.processes import LabProcess

HERE = Path(__file__).parent
WITNESSES, CLIENTS = 8, 8
_TIMEOUT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of the agent. `threads` are those that are not of its pool for slow reads."""

    descriptors: int
    threads: int
    read_threads: int
    anonymous_mebibytes: float
    pss_mebibytes: float
    tasks: int
    connections: int
    calls: int
    watchers: int
    unread_bytes: int


class Node:
    """A context manager: everything stands within, nothing is left after."""

    def __init__(self) -> None:
        self.lab = Lab()
        self.names: Iterator[int] = iter(range(1_000_000))
        self.lock = threading.Lock()
        """Held while a pod is made or deleted: the list is that of one moment."""
        self._cleanup = ExitStack()
        self._pod_resources: grpc.Server | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.lab)
            double = KubeletDouble(self.answer_pods)
            self.kubelet = stack.enter_context(serving(double))
            self.hostile = self.lab.pod("hostile").container("app", env={"WHO": "hostile"})
            self.witnesses = [self._witness(number) for number in range(WITNESSES)]
            self.resources_socket = self.lab.directory / "kubelet.sock"
            self.serve_resources()
            stack.callback(self.end_resources)
            self.agent: LabAgent = self.lab.agent(
                f"--kubelet-url={double.url}",
                f"--pod-resources={self.resources_socket}",
                "--pod-refresh=1",
                pod_source="kubelet",
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def _witness(self, number: int) -> LabContainer:
        name = f"witness-{number}"
        pod = self.lab.pod(name, labels={"who": name})
        return pod.container("app", env={"WHO": name, "PATH": os.environ["PATH"]})

    def answer_pods(self, handler: Handler) -> None:
        """Answer as a kubelet that is well."""
        with self.lock:
            body = json.dumps(self.lab.pod_list()).encode()
        handler.send(body)

    @contextmanager
    def passing_pod(self) -> Iterator[tuple[LabPod, LabContainer]]:
        """A pod that is removed afterwards."""
        with self.lock:
            name = f"passing-{next(self.names)}"
            pod = self.lab.pod(name)
            container = pod.container("app", env={"WHO": name})
        try:
            yield pod, container
        finally:
            with self.lock:
                pod.delete()
                self.lab.pods.remove(pod)

    def serve_resources(self) -> None:
        """Let PodResources appear: it knows every pod and gave nothing to any."""

        def listed(_: bytes, __: grpc.ServicerContext) -> bytes:
            pods = [
                v1.PodResources(
                    name=pod.name,
                    namespace=pod.namespace,
                    containers=[v1.ContainerResources(name=one.name) for one in pod.containers],
                )
                for pod in tuple(self.lab.pods)
            ]
            return v1.ListPodResourcesResponse(pod_resources=pods).SerializeToString()

        method: Any = grpc.unary_unary_rpc_method_handler(listed)
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method}),)
        )
        server.add_insecure_port(f"unix:{self.resources_socket}")
        server.start()
        self._pod_resources = server

    def end_resources(self) -> None:
        """Let PodResources disappear."""
        if self._pod_resources is not None:
            self._pod_resources.stop(0).wait()
            self._pod_resources = None
            self.resources_socket.unlink(missing_ok=True)

    def run(self, script: str, *words: str, seconds: float = 30.0) -> int:
        """Run a Python program in the hostile pod, killed after so long; return its exit code."""
        argv = [sys.executable, "-c", script, *words]
        return finish(self.hostile.spawn(argv, stdout=subprocess.DEVNULL, stderr=None), seconds)

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and value of every metric."""
        with urllib.request.urlopen(
            f"{self.agent.metrics_url}/metrics", timeout=_TIMEOUT_SECONDS
        ) as answer:
            lines = answer.read().decode().splitlines()
        found = []
        for line in lines:
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                found.append((match[1], labels, float(match[3])))
        return found

    def refusals(self) -> Counter[str]:
        """Refused calls by reason, connections closed or refused by what happened."""
        found: Counter[str] = Counter()
        for name, labels, value in self.metrics():
            if name == "netutil_calls_total" and labels["code"] != "OK":
                found[f"{labels['code']} {labels['reason']}".strip()] += int(value)
            elif name == "netutil_connections_total" and labels["result"] in (
                "rejected",
                "dropped",
            ):
                found[f"connections {labels['result']}"] += int(value)
        return found

    def resources(self) -> Resources:
        """Return the resources of the agent now."""
        metric = {name: value for name, labels, value in self.metrics() if not labels}
        process = Path(f"/proc/{self.agent.pid}")
        memory = dict(
            re.findall(r"^(\w+): +(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
        )
        read_threads = int(metric["netutil_host_read_threads"])
        return Resources(
            # What is held of containers and of pods is let go some time after their last question.
            descriptors=psutil.Process(self.agent.pid).num_fds()
            - int(metric["netutil_held_files"])
            - 2 * int(metric["netutil_held_cgroups"]),
            threads=psutil.Process(self.agent.pid).num_threads() - read_threads,
            read_threads=read_threads,
            anonymous_mebibytes=round(int(memory["Pss_Anon"]) / 1024, 1),
            pss_mebibytes=round(int(memory["Pss"]) / 1024, 1),
            tasks=int(metric["netutil_tasks"]),
            connections=int(metric["netutil_open_connections"]),
            calls=int(metric["netutil_calls_in_flight"]),
            watchers=int(metric["netutil_watchers"]),
            unread_bytes=int(metric["netutil_send_buffer_bytes"]),
        )


def finish(process: LabProcess, seconds: float) -> int:
    """Wait for a process, kill it after so long, and return its exit code."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


class Witnesses:
    """The clients that mean well, in all pods that stay; `reports` has what they saw."""

    def __init__(self, node: Node) -> None:
        self._running = [
            container.spawn(
                [sys.executable, str(HERE / "witness.py"), container.pod.name, str(CLIENTS)],
                stdin=subprocess.PIPE,
                stderr=None,
            )
            for container in node.witnesses
        ]

    def end(self) -> list[dict[str, Any]]:
        """Stop them and return their reports. One that ended by itself is an error in its own."""
        reports = []
        for process in self._running:
            assert process.stdin is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass
        for process in self._running:
            process.stdin = None
            output, _ = process.communicate(timeout=_TIMEOUT_SECONDS)
            ended = {"calls": 0, "fewest": 0, "wrong": [f"it ended with {process.returncode}"]}
            reports.append(json.loads(output) if output else {**ended, "refused": {}})
        return reports
