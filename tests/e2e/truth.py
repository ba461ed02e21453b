"""The facts of the kubelet, runc and the kernel about a container, without the agent."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from netutil.podresources.v1 import podresources_pb2

from tests.e2e.node import Node
from tests.e2e.settings import SLOWNESS

POD_RESOURCES = "unix:/var/lib/kubelet/pod-resources/kubelet.sock"
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Container:
    """A running container. `pid` is its first process, `spec` the OCI spec that runc got."""

    node: Node
    pod: dict[str, Any]
    name: str
    id: str
    pid: int
    spec: dict[str, Any]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as `kubectl exec` does: by runc, in the container."""
        self.node.executions += 1
        name = f"exec-{self.node.executions}"
        return self.node.try_ctr("tasks", "exec", "--exec-id", name, self.id, *command)

    def ask(self, *command: str) -> dict[str, Any]:
        """Run `netutil` in the container and return its JSON."""
        done = self.run("netutil", "--timeout", str(5 * SLOWNESS), *command, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self, name: str) -> str:
        """A field of /proc/<pid>/status of its first process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().split("\n"):
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        raise LookupError(name)

    def cgroup(self, *names: str) -> str:
        """The content of the first of these files that a cgroup of the container has."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().strip().split("\n"):
            _, controllers, path = line.split(":", 2)
            for mount in (controllers.removeprefix("name="), "unified", ""):
                for name in names:
                    file = _CGROUPS / mount / path.lstrip("/") / name
                    if file.is_file():
                        return file.read_text().strip()
        raise LookupError(f"{names} of {self.name}")

    def links(self) -> list[dict[str, Any]]:
        """The links of its network namespace but for lo, as `ip -j address` prints them."""
        shown = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-j", "address"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return [link for link in json.loads(shown) if link["ifname"] != "lo"]

    def environment(self) -> dict[str, str]:
        """The variables of the OCI spec."""
        return dict(entry.split("=", 1) for entry in self.spec["process"]["env"])


def container_of(node: Node, pod_name: str, name: str) -> Container:
    """Return a container of a pod, as it runs now.

    Raises LookupError where the pod's status is not of now: after the end of a container it names
    the ended one for some seconds.
    """
    pod = node.pods()[pod_name]
    statuses = pod["status"]["containerStatuses"]
    (container_id,) = (one["containerID"] for one in statuses if one["name"] == name)
    container_id = container_id.removeprefix("containerd://")
    tasks = [line.split() for line in node.ctr("tasks", "list").splitlines()]
    pids = [int(task[1]) for task in tasks if task[0] == container_id]
    if not pids:
        raise LookupError(f"{pod_name}/{name}: container {container_id} has no task")
    (pid,) = pids
    info = json.loads(node.ctr("containers", "info", container_id))
    return Container(node, pod, name, container_id, pid, info["Spec"])


def pod_resources_body() -> bytes:
    """Return the answer of the kubelet's own PodResources socket to List."""
    with grpc.insecure_channel(POD_RESOURCES) as channel:
        ask: Any = channel.unary_unary("/v1.PodResourcesLister/List")
        body: bytes = ask(b"", timeout=10 * SLOWNESS)
        return body


def pod_resources() -> dict[tuple[str, str], podresources_pb2.ContainerResources]:
    """The same by names of pod and container."""
    listed = podresources_pb2.ListPodResourcesResponse.FromString(pod_resources_body())
    return {
        (pod.name, container.name): container
        for pod in listed.pod_resources
        for container in pod.containers
    }
