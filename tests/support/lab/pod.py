"""Pods and containers: real processes where a kubelet and a runtime would have put them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tests.support.lab.cgroups import Cgroups
from tests.support.lab.launch import (
    NEW_CGROUP,
    NEW_IPC,
    NEW_MOUNT,
    NEW_NETWORK,
    NEW_PID,
    NEW_UTS,
    Launch,
)
from tests.support.lab.network import Fabric, Interface
from tests.support.lab.processes import (
    Environment,
    LabProcess,
    Processes,
    Stream,
    arguments,
    entries,
    inside_pid,
    wait_exited,
)
from tests.support.lab.shapes import Driver, QoS, Runtime, container_path, pod_path

Kind = Literal["container", "init", "ephemeral"]

SLEEP = ("sleep", "infinity")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Site:
    """The shared values of the pods of one lab."""

    directory: Path
    socket_directory: Path
    cgroups: Cgroups
    processes: Processes
    fabric: Fabric


class LabContainer:
    """A container. `pid` is its init as the host sees it."""

    def __init__(
        self, site: Site, pod: LabPod, name: str, *, kind: Kind, launch: Launch, path: str
    ) -> None:
        self.pod = pod
        self.name = name
        self.kind = kind
        self.id = path[-64:] if not path.endswith(".scope") else path[-70:-6]
        self.cgroup_path = f"/{site.cgroups.root}/{path}"
        self.cgroups = site.cgroups.directories(path)
        self.log = Path(launch.output or os.devnull)
        self.started_at = datetime.now(UTC)
        self.running = True
        self.resources: dict[str, Any] = {}
        """As its spec has them; set before the pod list is written."""
        self.status: dict[str, Any] = {}
        """Further fields of its status."""
        self._site = site
        self._path = path
        self._launch = launch
        self.pid = site.processes.start(launch)

    @property
    def pid_inside(self) -> int:
        """The pid of its init as the container sees it: 1 unless the pod shares one namespace."""
        return inside_pid(self.pid)

    def spawn(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Environment | None = None,
        uid: int | None = None,
        gid: int | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> LabProcess:
        """Start a process as `kubectl exec` does, in all of the container's namespaces and cgroups.

        Environment and user are the container's unless given.
        """
        return self._site.processes.spawn(
            self._inside(argv, env, uid, gid),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
        )

    def run(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Environment | None = None,
        uid: int | None = None,
        gid: int | None = None,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """As `spawn`, to the process's end."""
        launch = self._inside(argv, env, uid, gid)
        return self._site.processes.run(launch, input=input, timeout=timeout)

    def kill(self) -> None:
        """Kill the container and remove its cgroups; the pod list shows it as terminated."""
        with suppress(ProcessLookupError):
            if self.running:
                os.kill(self.pid, signal.SIGKILL)
        wait_exited(self.pid)
        self.running = False
        self._site.cgroups.remove(self._path)

    def _inside(
        self, argv: Sequence[str | bytes], env: Environment | None, uid: int | None, gid: int | None
    ) -> Launch:
        kinds = ("cgroup", "ipc", "uts", "net", "pid", "mnt")
        return Launch(
            argv=arguments(argv),
            env=self._launch.env if env is None else entries(env),
            cgroups=self._launch.cgroups,
            join=tuple(f"/proc/{self.pid}/ns/{kind}" for kind in kinds),
            uid=self._launch.uid if uid is None else uid,
            gid=self._launch.gid if gid is None else gid,
        )


class LabPod:
    """A pod with its sandbox: the process that holds the namespaces which containers share."""

    def __init__(
        self,
        site: Site,
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
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.uid = uid or (uuid.uuid4().hex if static else str(uuid.uuid4()))
        self.driver = driver
        self.runtime = runtime
        self.qos = qos
        self.static = static
        self.host_network = host_network
        self.share_process_namespace = share_process_namespace
        self.annotations = dict(annotations or {})
        if static:
            self.annotations |= {
                "kubernetes.io/config.hash": self.uid,
                "kubernetes.io/config.source": "file",
            }
        self.labels = dict(labels or {})
        self.created_at = datetime.now(UTC)
        self.containers: list[LabContainer] = []
        self.interfaces: list[Interface] = []
        self.ip: str | None = None
        self.deleted = False
        self.spec: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        """Further fields of its spec and status."""
        self._site = site
        self._path = pod_path(self.uid, qos, driver)
        self._paths: list[str] = []
        self.cgroup_path = f"/{site.cgroups.root}/{self._path}"
        self.sandbox_id, _, launch = self._prepare(SLEEP, ())
        unshare = NEW_IPC | NEW_PID | (0 if host_network else NEW_NETWORK | NEW_UTS)
        self.sandbox_pid = site.processes.start(
            launch._replace(
                unshare=unshare, hostname=None if host_network else name, output=os.devnull
            )
        )
        if eth0 and not host_network:
            self.ip = site.fabric.next_address()
            self.veth("eth0", [f"{self.ip}/24"])

    def container(
        self,
        name: str,
        *,
        env: Environment | None = None,
        cpus: str | None = None,
        quota: float | None = None,
        uid: int = 0,
        gid: int = 0,
        argv: Sequence[str | bytes] = SLEEP,
        kind: Kind = "container",
        private_cgroup_namespace: bool = False,
    ) -> LabContainer:
        """Start a container whose init runs `argv` with exactly the environment `env`.

        `cpus` is a CPU list (the first CPU of this process if not given),
        `quota` a CFS quota in cores. stdout and stderr go to the container's `log`.
        """
        if env is None:
            env = {"PATH": _PATH, "HOSTNAME": self.name}
        container_id, path, launch = self._prepare(arguments(argv), entries(env))
        self._site.cgroups.confine(path, cpus or str(min(os.sched_getaffinity(0))), quota)
        shared = ["ipc", *([] if self.host_network else ["net", "uts"])]
        unshare = NEW_MOUNT | (NEW_CGROUP if private_cgroup_namespace else 0)
        if self.share_process_namespace:
            shared.append("pid")
        else:
            unshare |= NEW_PID
        launch = launch._replace(
            join=tuple(f"/proc/{self.sandbox_pid}/ns/{kind}" for kind in shared),
            unshare=unshare,
            socket_directory=str(self._site.socket_directory),
            uid=uid,
            gid=gid,
            output=str(self._site.directory / f"{self.name}-{name}-{container_id[:8]}.log"),
        )
        container = LabContainer(self._site, self, name, kind=kind, launch=launch, path=path)
        self.containers.append(container)
        return container

    def veth(
        self,
        name: str,
        addresses: Sequence[str] = (),
        mac: str | None = None,
        mtu: int | None = None,
    ) -> Interface:
        """Give the pod a real interface; the other end is in a namespace of the lab."""
        if self.host_network:
            raise ValueError("a host-network pod has no network namespace of its own")
        interface = self._site.fabric.connect(self.sandbox_pid, name, addresses, mac, mtu)
        self.interfaces.append(interface)
        return interface

    def limit(self, quota_cores: float | None) -> None:
        """Set the CFS quota of the pod's own cgroup, as a pod-level limit does; None for none."""
        self._site.cgroups.limit(self._path, quota_cores)

    def delete(self) -> None:
        """Kill the whole pod and remove its cgroups; the pod list no longer has it."""
        for path in self._paths if self.driver in ("joined", "no-uid") else (self._path,):
            self._site.cgroups.remove(path)
        for pid in (self.sandbox_pid, *(container.pid for container in self.containers)):
            wait_exited(pid)
        for container in self.containers:
            container.running = False
        self.deleted = True

    def _prepare(self, argv: tuple[str, ...], env: tuple[str, ...]) -> tuple[str, str, Launch]:
        """Make a container's cgroups: its ID, its path, and the launch that enters them."""
        container_id = secrets.token_hex(32)
        path = container_path(self.uid, self.qos, self.driver, self.runtime, container_id)
        self._paths.append(path)
        self._site.cgroups.make(path)
        return container_id, path, Launch(argv, env, self._site.cgroups.members_files(path))
