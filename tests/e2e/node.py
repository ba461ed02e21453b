"""A real node: containerd and a kubelet that runs static pods.

It has the machine to itself: this runs in a place of its own (`namespaces`), or in a virtual
machine, so paths and ports are the usual ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trustme

from tests.e2e.deploy import CLIENT, agent_pod
from tests.e2e.files import daemon, made, unmount_below, write
from tests.e2e.namespaces import NODE_ADDRESS
from tests.e2e.pod_status import has_failed, is_ready
from tests.e2e.settings import (
    CLIENT_CA,
    CONTAINERD_SOCKET,
    KUBELET_HEALTH_PORT,
    KUBELET_PORT,
    RESULTS,
    SLOWNESS,
    STATIC_PODS,
    Driver,
    as_yaml,
    cni_settings,
    containerd_settings,
    kubelet_settings,
)
from tests.support.lab.cgroups import Cgroups

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iproute2", "gcc", "libc6-dev")
NODE_NAME = "e2e"
_ADDED = "netutil-e2e/added"
_LOGS = Path("/var/log/node")
_REMOVED_AT_BOOT = tuple(
    Path("/run", name)
    for name in ("containerd", "netns", "netutil", "netutil-admin", "results", "runc")
)
_PODS = Path("/var/lib/kubelet/pods")
_SERVING_CERTIFICATE = "/var/lib/kubelet/pki/kubelet.crt"


class Node:
    """A running node. Made by `running_node`."""

    def __init__(self, kubelet: Path, *, driver: Driver, cgroup: str, exclusive_cpus: bool) -> None:
        self.driver = driver
        self.cgroup = cgroup
        self._kubelet_path = kubelet
        self.executions = 0
        self._exclusive_cpus = exclusive_cpus
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start containerd and the kubelet."""
        self.start_containerd()
        self.start_kubelet()

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers."""
        for path, content in cni_settings().items():
            write(Path(path), content)
        settings = Path("/var/lib/containerd.toml")
        write(settings, containerd_settings(self.driver))
        self._spawn("containerd", "containerd", "--config", str(settings))
        wait_for(lambda: self.try_ctr("version").returncode == 0, "containerd")

    def start_kubelet(self, *arguments: str, webhook: bool = False) -> None:
        """Start the kubelet and wait until it is healthy."""
        Path(STATIC_PODS).mkdir(exist_ok=True)
        self._make_certificates()
        settings = Path("/var/lib/kubelet.yaml")
        content = kubelet_settings(
            driver=self.driver,
            cgroup=self.cgroup,
            exclusive_cpus=self._exclusive_cpus,
            webhook=webhook,
        )
        write(settings, as_yaml(content))
        self._spawn(
            "kubelet",
            str(self._kubelet_path),
            f"--config={settings}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{CONTAINERD_SOCKET}",
            f"--log-dir={_LOGS}",
            "--v=1",
            *arguments,
        )
        wait_for(self._healthy, "the kubelet's /healthz")

    def stop_kubelet(self) -> None:
        """Stop the kubelet; its containers go on."""
        self._end("kubelet")

    def reboot(self) -> None:
        """End all containers and daemons at once, empty /run, and start: as after power loss."""
        for name in ("kubelet", "containerd"):
            process = self._processes.pop(name)
            process.kill()
            process.wait()
        lose_containers()
        RESULTS.mkdir()
        RESULTS.chmod(0o777)
        self.start()

    def import_image(self, image: bytes | Path) -> None:
        """Give containerd an image, as the kubelet finds it."""
        if isinstance(image, bytes):
            path = Path("/var/lib/image.tar")
            path.write_bytes(image)
        else:
            path = image
        self.ctr("images", "import", str(path))

    def ctr(self, *arguments: str) -> str:
        """Ask containerd by its own tool."""
        done = self.try_ctr(*arguments)
        if done.returncode != 0:
            raise RuntimeError(f"ctr {arguments}: {done.stderr}")
        return done.stdout

    def try_ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Ask containerd by its own tool; the caller looks at the exit code."""
        return subprocess.run(
            ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=120 * SLOWNESS,
        )

    def add(self, *manifests: dict[str, Any]) -> None:
        """Give the kubelet static pods.

        Each gets a UID of its own, as pods of an API server do: the kubelet makes the UID from the
        manifest. The kubelet keeps the status of a removed pod for a while and would give that to
        a pod of the same UID before its containers run.
        """
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            annotations = {**manifest["metadata"].get("annotations", {}), _ADDED: str(uuid.uuid4())}
            unique = {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}
            fresh = Path("/var/lib", f"{name}.yaml")
            fresh.write_text(as_yaml(unique), encoding="utf-8")
            fresh.replace(Path(STATIC_PODS, f"{name}.yaml"))

    def remove(self, *names: str) -> None:
        """Remove static pods and wait until the kubelet lists them no more."""
        for name in names:
            Path(STATIC_PODS, f"{name}.yaml").unlink(missing_ok=True)
        wait_for(lambda: not set(names) & self.pods().keys(), f"the end of {names}", 60)

    def deploy(self, variant: str) -> None:
        """Let the agent of a variant of the manifests be the one that runs."""
        wanted = agent_pod(variant)
        name = wanted["metadata"]["name"]
        present = {one for one in self.pods() if one.startswith("netutil-agent")}
        if name not in present:
            self.add(wanted)
        self.running(name)
        self.remove(*present - {name})

    def pods(self) -> dict[str, Any]:
        """The kubelet's own list, by the names in the manifests."""
        items = json.loads(self.pods_body())["items"] or []
        return {one["metadata"]["name"].removesuffix(f"-{NODE_NAME}"): one for one in items}

    def pods_body(self) -> bytes:
        """Return the kubelet's answer to GET /pods."""
        context = ssl.create_default_context(cafile=_SERVING_CERTIFICATE)
        context.check_hostname = False  # it signs its own, for its name only
        context.load_cert_chain(*CLIENT)
        url = f"https://{NODE_ADDRESS}:{KUBELET_PORT}/pods"
        with urllib.request.urlopen(url, context=context, timeout=30 * SLOWNESS) as answer:
            body: bytes = answer.read()
            return body

    def running(self, *names: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until all containers of these pods run and are ready; return the pods by name."""
        found: dict[str, Any] = {}

        def run() -> bool:
            pods = self.pods()
            found.update((name, pods[name]) for name in names if name in pods)
            failed = {name: pod for name, pod in found.items() if has_failed(pod)}
            if failed:
                raise RuntimeError(as_yaml({name: pod["status"] for name, pod in failed.items()}))
            return len(found) == len(names) and all(map(is_ready, found.values()))

        try:
            wait_for(run, f"pods {names}", seconds)
        except TimeoutError as error:
            states = {name: pod["status"] for name, pod in found.items() if not is_ready(pod)}
            raise TimeoutError(f"{error}: {as_yaml(states)}") from error
        return found

    def log(self, name: str) -> str:
        """Return the log of "containerd" or "kubelet"."""
        return (_LOGS / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End the daemons. Containers and mounts end with the place."""
        for name in list(self._processes):
            self._end(name)

    def _healthy(self) -> bool:
        kubelet = self._processes["kubelet"]
        if kubelet.poll() is not None:
            raise RuntimeError("the kubelet ended:\n" + self.log("kubelet")[-3000:])
        url = f"http://127.0.0.1:{KUBELET_HEALTH_PORT}/healthz"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def _spawn(self, name: str, *command: str) -> None:
        self._processes[name] = daemon(_LOGS / f"{name}.log", *command)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(20 * SLOWNESS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _make_certificates(self) -> None:
        """A CA for clients of the kubelet, and the agent's certificate of it."""
        if Path(CLIENT_CA).exists():
            return
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made(Path(CLIENT_CA)))
        issued = authority.issue_cert("agent.netutil.test", common_name="netutil-agent")
        CLIENT[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        CLIENT[1].write_bytes(issued.private_key_pem.bytes())


@contextlib.contextmanager
def running_node(
    kubelet: Path,
    *images: bytes | Path,
    kubelet_arguments: tuple[str, ...] = (),
    webhook: bool = False,
) -> Iterator[Node]:
    """A node until the end of the block. NETUTIL_NODE names its cgroup, "/" none of its own."""
    cgroup = os.environ["NETUTIL_NODE"].strip("/")
    node = Node(
        kubelet,
        driver="systemd" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cgroupfs",
        cgroup=cgroup,
        exclusive_cpus=True,
    )
    try:
        node.start_containerd()
        for image in images:
            node.import_image(image)
        node.start_kubelet(*kubelet_arguments, webhook=webhook)
        yield node
    finally:
        node.close()


def lose_containers() -> None:
    """End all containers, remove their cgroups and mounts, empty /run: what power loss leaves.

    The kubelet and containerd have ended before.
    """
    for pid in _pod_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not _pod_processes(), "the end of all containers")
    cgroup = os.environ["NETUTIL_NODE"].strip("/")
    if cgroup:  # systemd removes those of the virtual machine by itself
        Cgroups(cgroup).remove("kubepods")
    unmount_below(_PODS)
    for path in _REMOVED_AT_BOOT:
        unmount_below(path)
        shutil.rmtree(path, ignore_errors=True)


def _pod_processes() -> set[int]:
    """Return processes of containers and of their shims."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            shim = b"containerd-shim" in (entry / "cmdline").read_bytes()
            if shim or "kubepods" in (entry / "cgroup").read_text():
                found.add(pid)
    return found


def wait_for(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return when it is so. Raises TimeoutError that names it."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds * SLOWNESS:g} seconds")
        time.sleep(0.1 * SLOWNESS)  # each look costs the kubelet a TLS handshake
