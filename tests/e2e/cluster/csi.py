"""The CSI driver in a cluster of this machine, and what the host shows of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from netutil.agent.csi.mountinfo import Mount, read_mounts_at

from tests.e2e.cluster import overlay
from tests.e2e.cluster.kubectl import AGENTS, NAMESPACE, Cluster
from tests.e2e.cluster.objects import container, pod
from tests.e2e.node import lose_containers, wait_for
from tests.e2e.settings import CONTAINERD_SOCKET, KUBELET_HEALTH_PORT

NAME = "csi.netutil"
KUBELET_ROOT = Path("/var/lib/kubelet")
REGISTRY = KUBELET_ROOT / "plugins_registry"
_DAEMON_SET = "netutil-csi"
_FIRST_WITH_SELINUX_MOUNT = 25
_DIRECTORY = "csi"


def install(cluster: Cluster) -> None:
    """Apply the component, in an overlay of its own, and wait for the driver's pod."""
    directory = cluster.directory / _DIRECTORY
    directory.mkdir(exist_ok=True)
    patches = []
    if cluster.server_minor() < _FIRST_WITH_SELINUX_MOUNT:
        patches.append(patch("CSIDriver", [{"op": "remove", "path": "/spec/seLinuxMount"}]))
    if cluster.server_minor() < overlay.FIRST_WITH_SURGE:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
        operation = {"op": "replace", "path": "/spec/updateStrategy", "value": strategy}
        patches.append(patch("DaemonSet", [operation]))
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "components": ["../netutil/manifests/csi"],
        "images": [{"name": overlay.PLACEHOLDER, **overlay.image_fields(cluster.image)}],
        "patches": patches,
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    cluster.run("apply", "-k", _DIRECTORY)
    rolled_out(cluster)


def patch(kind: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
    """A patch of kustomize."""
    return {"target": {"kind": kind}, "patch": yaml.safe_dump(operations)}


def rolled_out(cluster: Cluster, name: str = _DAEMON_SET) -> None:
    """Wait until a DaemonSet's pod runs."""
    cluster.run("-n", AGENTS, "rollout", "status", f"daemonset/{name}", "--timeout=90s")


def remove_driver(cluster: Cluster) -> None:
    """Delete the DaemonSet, and wait until its pods have ended."""
    cluster.run("-n", AGENTS, "delete", f"daemonset/{_DAEMON_SET}", "--cascade=foreground")
    wait_for(lambda: not pids(), "the end of the driver", 60)


def delete_driver_object(cluster: Cluster) -> None:
    """Delete the CSIDriver object."""
    cluster.run("delete", f"csidriver/{NAME}")


def daemon_set(
    cluster: Cluster, name: str, change: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Return a copy of the driver's DaemonSet of another name, whose pod spec is changed."""
    found = yaml.safe_load_all(cluster.run("kustomize", _DIRECTORY))
    (made,) = (one for one in found if one["kind"] == "DaemonSet")
    labels = {"app.kubernetes.io/name": name}
    made["metadata"].update(name=name, labels=labels)
    made["spec"]["selector"]["matchLabels"] = labels
    made["spec"]["template"]["metadata"]["labels"] = labels
    change(made["spec"]["template"]["spec"])
    copied: dict[str, Any] = made
    return copied


def client_pod(
    cluster: Cluster,
    name: str,
    volume: dict[str, Any] | None = None,
    **mount: Any,
) -> dict[str, Any]:
    """Return a pod of an ordinary user with the volume; `volume` changes its csi section."""
    csi = {"driver": NAME, "readOnly": True, **(volume or {})}
    app = container(
        "app",
        cluster.image,
        securityContext={"runAsUser": 65534, "runAsNonRoot": True},
        # Without readOnly: the volume is read-only by itself.
        volumeMounts=[{"name": "netutil", "mountPath": "/etc/netutil", **mount}],
    )
    return pod(name, app, volumes=[{"name": "netutil", "csi": csi}])


def start(cluster: Cluster, *names: str) -> list[str]:
    """Start pods with the volume, wait until they are ready, and return their UIDs."""
    cluster.apply(*(client_pod(cluster, name) for name in names))
    for name in names:
        cluster.wait("condition=Ready", f"pod/{name}")
    return [uid(cluster, name) for name in names]


def delete(cluster: Cluster, *names: str) -> None:
    """Delete pods ("--all": all of the tests), and wait until they have ended."""
    command = ("delete", "--namespace", NAMESPACE, "pods", *names, "--timeout=170s")
    cluster.run(*command, seconds=180.0)


def wait_until_answered(cluster: Cluster, name: str, seconds: float) -> None:
    """Wait until the agent answers a pod."""

    def answered() -> bool:
        done = cluster.attempt("exec", "--namespace", NAMESPACE, name, "--", "netutil", "whoami")
        return done.returncode == 0

    wait_for(answered, f"an answer for {name}", seconds)


def restarts(cluster: Cluster) -> int:
    """Return how often the kubelet has started the driver's container again."""
    labels = "app.kubernetes.io/name=netutil,app.kubernetes.io/component=csi"
    (found,) = cluster.select(labels, AGENTS)
    (status,) = found["status"]["containerStatuses"]
    return int(status["restartCount"])


def uid(cluster: Cluster, name: str) -> str:
    """Return a pod's UID."""
    return str(cluster.get("pod", name)["metadata"]["uid"])


def events(cluster: Cluster, name: str) -> list[str]:
    """Return the messages of a pod's events."""
    selector = f"--field-selector=involvedObject.name={name}"
    listed = cluster.run("get", "--namespace", NAMESPACE, "events", selector, "--output", "json")
    return [str(one["message"]) for one in json.loads(listed)["items"]]


def wait_for_event(cluster: Cluster, name: str, text: str) -> str:
    """Wait for an event of a pod that has a text, and return its message."""
    found: list[str] = []

    def has_come() -> bool:
        found[:] = [message for message in events(cluster, name) if text in message]
        return bool(found)

    try:
        wait_for(has_come, f"an event of {name}: {text}", 60)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; there are {events(cluster, name)}") from error
    return found[0]


def log(cluster: Cluster, name: str = _DAEMON_SET) -> str:
    """Return what a driver wrote; nothing while its container or the kubelet is starting."""
    return cluster.attempt("logs", "-n", AGENTS, f"daemonset/{name}").stdout


def wait_for_log(cluster: Cluster, text: str, times: int) -> None:
    """Wait until the driver has written a text that often."""
    wait_for(lambda: log(cluster).count(text) >= times, f"{times} times: {text}", 180)


def target(pod_uid: str) -> str:
    """Return the path at which a pod's volume is mounted on the host."""
    return f"{KUBELET_ROOT}/pods/{pod_uid}/volumes/kubernetes.io~csi/netutil/mount"


def mounts(pod_uid: str) -> tuple[Mount, ...]:
    """Return the mounts at the target of a pod's volume, as the host has them."""
    return read_mounts_at(target(pod_uid))


def mounts_of_all_pods() -> list[str]:
    """Return the targets of all mounts of CSI volumes, one for each mount."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").split("\n")
    points = [line.split(" ")[4] for line in lines if line]
    return [point for point in points if "kubernetes.io~csi" in point]


def targets_of_running_pods(cluster: Cluster) -> list[str]:
    """Return the targets of all running pods with the volume, sorted."""
    listed = json.loads(cluster.run("get", "--namespace", NAMESPACE, "pods", "--output", "json"))
    return sorted(
        target(one["metadata"]["uid"])
        for one in listed["items"]
        if one["status"]["phase"] == "Running"
        and any("csi" in volume for volume in one["spec"]["volumes"])
    )


def pids() -> list[int]:
    """Return the PIDs of the driver's processes on the host, without those of probes."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/netutil-csi") for word in words) and b"--check" not in words:
                found.append(int(entry.name))
    return found


def restart_kubelet() -> None:
    """End the kubelet and start it with its own arguments; its containers go on."""
    command = _stop("kubelet", signal.SIGTERM)
    _start("kubelet", command)
    wait_for(_healthy, "the kubelet's /healthz", 60)


def reboot() -> None:
    """End the daemons of the node and all containers at once, and start: as after power loss."""
    commands = {name: _stop(name, signal.SIGKILL) for name in ("kubelet", "containerd")}
    lose_containers()
    _start("containerd", commands["containerd"])
    wait_for(_containerd_answers, "containerd", 60)
    _start("kubelet", commands["kubelet"])
    wait_for(_healthy, "the kubelet's /healthz", 60)


def _stop(name: str, signal_number: int) -> list[str]:
    """End a daemon of the node, and return its command."""
    (pid,) = _daemons(name)
    command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").rstrip("\0").split("\0")
    os.kill(pid, signal_number)
    wait_for(lambda: not _daemons(name), f"the end of {name}", 30)
    return command


def _start(name: str, command: list[str]) -> None:
    with Path(f"/var/log/node/{name}.log").open("ab") as output:
        # A process of the node's, not of the tests: it outlives them.
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def _daemons(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            # A process that has ended and is not reaped has no command line.
            program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            if os.path.basename(program) == name.encode("ascii"):
                found.append(pid)
    return found


def _containerd_answers() -> bool:
    command = ["ctr", "--address", CONTAINERD_SOCKET, "version"]
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def _healthy() -> bool:
    url = f"http://127.0.0.1:{KUBELET_HEALTH_PORT}/healthz"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def host(*command: str) -> None:
    """Run a command as an administrator of the node would."""
    subprocess.run(command, check=True, timeout=30)
