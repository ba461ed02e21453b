"""The lab: pods on any Linux machine with root, without Kubernetes, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.lab.agent import COMMAND, LabAgent, free_address
from tests.support.lab.cgroups import Cgroups, find_hierarchies
from tests.support.lab.confined import CONFINED, confined
from tests.support.lab.network import Fabric
from tests.support.lab.ownership import is_left, new_name
from tests.support.lab.pod import LabPod, Site
from tests.support.lab.pod_list import pod_list
from tests.support.lab.processes import Processes
from tests.support.lab.shapes import Driver, QoS, Runtime

_TOP = Path("/tmp")


class LabUnavailable(Exception):
    """This machine or user cannot have a lab; the text says what it needs."""


def why_no_lab() -> str | None:
    """Return the prerequisite that a lab lacks here, None if it lacks nothing."""
    if os.geteuid() != 0:
        return "needs root, for namespaces and cgroups"
    if not shutil.which("ip"):
        return "needs the command ip (iproute2)"
    if not find_hierarchies():
        return "needs a writable cgroup hierarchy"
    return None


class Lab:
    """A context manager; all that it made is removed afterwards, whatever happened within.

    What a killed earlier lab left is removed at the start.
    """

    directory: Path
    socket: Path
    admin_socket: Path

    def __init__(self) -> None:
        self.name = new_name()
        self.directory = _TOP / self.name
        self.socket = self.directory / "run" / "net.sock"
        self.admin_socket = self.directory / "admin" / "admin.sock"
        self.pods: list[LabPod] = []
        self.agents: list[LabAgent] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        missing = why_no_lab()
        if missing:
            raise LabUnavailable(missing)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        uid: str | None = None,
        driver: Driver = "cgroupfs",
        runtime: Runtime = "containerd",
        qos: QoS = "burstable",
        static: bool = False,
        host_network: bool = False,
        share_process_namespace: bool = False,
        eth0: bool = True,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> LabPod:
        """Start a pod without containers: its sandbox, with lo and, if asked for, eth0."""
        pod = LabPod(
            self._site,
            name,
            namespace=namespace,
            uid=uid,
            driver=driver,
            runtime=runtime,
            qos=qos,
            static=static,
            host_network=host_network,
            share_process_namespace=share_process_namespace,
            eth0=eth0,
            annotations=annotations,
            labels=labels,
        )
        self.pods.append(pod)
        return pod

    def limit_kubepods(self, quota_cores: float | None) -> None:
        """Set the CFS quota of all pods of a driver together (node allocatable), None for none."""
        for place in ("kubepods", "kubepods.slice"):
            self._site.cgroups.limit(place, quota_cores)

    def pod_list(self) -> dict[str, Any]:
        """The PodList of what runs now, as a kubelet's /pods prints it."""
        return pod_list(pod for pod in self.pods if not pod.deleted)

    def write_pod_list(self, path: Path | None = None) -> Path:
        """Write the PodList in one step; to where `agent` reads it if no path is given."""
        target = path or self.directory / "pods.json"
        fresh = target.with_name(f".{target.name}.{threading.get_ident()}")
        fresh.write_text(json.dumps(self.pod_list()), encoding="utf-8")
        fresh.replace(target)
        return target

    def agent(
        self,
        *flags: str,
        pod_source: str | None = None,
        command: Sequence[str] = COMMAND,
        around: Sequence[str] = (),
        writable: Sequence[Path] = (),
    ) -> LabAgent:
        """Start an agent and wait until it listens. Flags given here win over the lab's.

        `around` is a prefix that makes its surroundings; it is never confined. One that is confined
        may write to the sockets' directories, and those that are `writable`.

        Without `pod_source` it reads what `write_pod_list` writes; that is
        written once now.
        """
        if pod_source is None:
            pod_source = f"file:{self.write_pod_list()}"
        own = [flag.partition("=")[2] for flag in flags if flag.startswith("--metrics-address=")]
        metrics = own[-1] if own else free_address()
        argv = [
            *command,
            f"--socket={self.socket}",
            f"--admin-socket={self.admin_socket}",
            f"--pod-source={pod_source}",
            f"--metrics-address={metrics}",
            *flags,
        ]
        if CONFINED:
            argv = self.confined(argv, writable)
        return self.start_agent([*around, *argv], metrics)

    def confined(self, command: Sequence[str], writable: Sequence[Path] = ()) -> list[str]:
        """Return the command confined, in a root directory of its own."""
        root = Path(tempfile.mkdtemp(prefix="root-", dir=self.directory))
        return confined(command, root, (self.socket.parent, self.admin_socket.parent, *writable))

    def start_agent(self, command: Sequence[str], metrics_address: str) -> LabAgent:
        """Start an agent by its whole command line; wait until it listens at the lab's socket."""
        place = f"agent-{len(self.agents)}"
        self._site.cgroups.make(place)
        agent = LabAgent(
            self._site.processes,
            command,
            socket_path=self.socket,
            admin_socket=self.admin_socket,
            metrics_address=metrics_address,
            log=self.directory / f"{place}.log",
            cgroups=self._site.cgroups.members_files(place),
        )
        self.agents.append(agent)
        agent.wait_ready()
        return agent

    def close(self) -> None:
        """Stop the agents, kill the rest, remove everything. Not interrupted by signals."""
        with _uninterrupted():
            self._cleanup.close()

    def _open(self) -> None:
        cgroups = Cgroups(self.name)
        cgroups.remove_stale()
        for entry in filter(is_left, _TOP.iterdir()):
            shutil.rmtree(entry, ignore_errors=True)
        self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o755)
        self.socket.parent.mkdir(mode=0o755)
        self.admin_socket.parent.mkdir(mode=0o700)
        processes = Processes()
        self._cleanup.callback(processes.close)
        self._cleanup.callback(cgroups.remove)
        cgroups.make("kubepods")
        self._cleanup.callback(self._stop_agents)
        fabric = Fabric(processes, cgroups)
        self._site = Site(self.directory, self.socket.parent, cgroups, processes, fabric)

    def _stop_agents(self) -> None:
        for agent in self.agents:
            if agent.running:
                agent.stop()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back meanwhile (in the main thread, which they interrupt)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
