"""A host with a kubelet's directories, and drivers in containers of their own.

The host is a mount namespace in which the directory of pods is a shared mount. A driver has a
mount namespace of its own, as a container with mountPropagation Bidirectional has: the directory
of pods is in the same peer group, and the source is a bind mount. Files are the same for all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from netutil.agent.csi.mountinfo import Mount, parse_mounts_at
from netutil.csi.v1 import csi_pb2, csi_pb2_grpc
from netutil.csi.v1 import pluginregistration_pb2 as registration_messages
from netutil.csi.v1 import pluginregistration_pb2_grpc as registration_services

NAME = "csi.netutil"
SECONDS = 20.0
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig=KILL")


@dataclass(frozen=True, slots=True)
class Driver:
    """A running driver. Its log is a pipe."""

    process: subprocess.Popen[str]

    def wait_for_log(self, text: str) -> str:
        """Return the first line of the log from now on that has this text."""
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} is not in the log: {''.join(lines)}")

    def end(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit code and the rest of the log."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the rest of the log."""
        _, log = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, log


@dataclass(frozen=True, slots=True)
class Host:
    """The host's mount namespace, and its directories."""

    directory: Path
    pid: int

    @property
    def source(self) -> Path:
        return self.directory / "run/netutil"

    @property
    def kubelet_root(self) -> Path:
        return self.directory / "kubelet"

    @property
    def endpoint(self) -> Path:
        return self.kubelet_root / f"plugins/{NAME}/csi.sock"

    @property
    def registry(self) -> Path:
        return self.kubelet_root / "plugins_registry"

    def run(self, *command: str) -> None:
        """Run a command in the host's mount namespace."""
        subprocess.run(self.enter(*command), check=True, timeout=SECONDS)

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *command]

    def mounts_at(self, path: str) -> tuple[Mount, ...]:
        """The mounts at a path, as the host has them."""
        return parse_mounts_at(Path(f"/proc/{self.pid}/mountinfo").read_bytes(), path)

    def seen(self, path: str) -> Path:
        """A path of the host's mount namespace, for this process."""
        return Path(f"/proc/{self.pid}/root{path}")

    def target(self, volume: str = "netutil") -> tuple[str, str]:
        """The UID of a new pod and the target of its volume, whose parent the kubelet makes."""
        uid = str(uuid4())
        path = self.kubelet_root / f"pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"
        path.parent.mkdir(parents=True)
        return uid, str(path)

    def command(self, *flags: str) -> list[str]:
        """The driver, with the flags of this host."""
        return [
            *(sys.executable, "-m", "netutil.agent.csi", f"--source={self.source}"),
            *(f"--kubelet-root={self.kubelet_root}", "--node-name=node-1", *flags),
        ]

    def in_container(self, *command: str, mounts: str = "") -> list[str]:
        """A command in a mount namespace as a driver's container has.

        The source's mount point is in a file system of the container's: a removal of the source
        on the host would otherwise unmount it (rmdir(2) of a mount point of other namespaces).
        """
        run = self.source.parent
        script = (
            f"exec 3< {self.source} && mount -t tmpfs tmpfs {run} && mkdir {self.source}"
            f" && mount --no-canonicalize --bind /proc/self/fd/3 {self.source} && exec 3<&-"
            f' && {mounts or ":"} && exec "$@"'
        )
        unshare = ("unshare", "--mount", "--propagation", "unchanged")
        return [*_DIE_WITH_PARENT, *self.enter(*unshare, "sh", "-c", script, "sh", *command)]

    @contextlib.contextmanager
    def driver(self, *flags: str, mounts: str = "", is_ready: bool = True) -> Iterator[Driver]:
        """A driver until the end of the block; `mounts` are commands before its start."""
        with subprocess.Popen(
            self.in_container(*self.command(*flags), mounts=mounts),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            driver = Driver(process)
            try:
                if is_ready:
                    driver.wait_for_log("serves")
                yield driver
            finally:
                process.kill()

    def check(self, pid: int) -> subprocess.CompletedProcess[str]:
        """Run `netutil-csi --check` in the container of a driver, as the kubelet does."""
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{pid}/ns/mnt", *self.command("--check")],
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def registration_sockets(self) -> list[str]:
        return sorted(os.listdir(self.registry))


@contextlib.contextmanager
def running_host(*, tmpfs: bool = False) -> Iterator[Host]:
    """A host until the end of the block. Its mounts end with it.

    `tmpfs`: the source's parent is a file system of its own, as /run is; the test's own mount
    namespace then has no source.
    """
    # pytest's own temporary directories are longer than a socket's path may be.
    directory = Path(tempfile.mkdtemp(prefix="nu-", dir="/tmp"))
    for name in ("run/netutil", "kubelet/pods", f"kubelet/plugins/{NAME}"):
        (directory / name).mkdir(parents=True)
    (directory / "kubelet/plugins_registry").mkdir()
    pods = directory / "kubelet/pods"
    run = directory / "run"
    script = (f"mount -t tmpfs tmpfs {run} && mkdir {run}/netutil && " if tmpfs else "") + (
        f"mount --bind {pods} {pods} && mount --make-shared {pods} && echo ready"
        " && exec sleep infinity"
    )
    command = [*_DIE_WITH_PARENT, "unshare", "--mount", "--propagation", "private"]
    with subprocess.Popen(
        [*command, "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Host(directory, process.pid)
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(directory)


@dataclass(frozen=True, slots=True)
class Kubelet:
    """Calls a driver over one socket, as the kubelet does."""

    node: csi_pb2_grpc.NodeStub
    identity: csi_pb2_grpc.IdentityStub
    registration: registration_services.RegistrationStub

    def publish(self, uid: str, path: str, **changes: object) -> None:
        self.node.NodePublishVolume(request(uid, path, **changes), timeout=SECONDS)

    def unpublish(self, path: str) -> None:
        message = csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=path)
        self.node.NodeUnpublishVolume(message, timeout=SECONDS)

    def register(self, is_registered: bool, error: str = "") -> None:
        message = registration_messages.RegistrationStatus(
            plugin_registered=is_registered, error=error
        )
        self.registration.NotifyRegistrationStatus(message, timeout=SECONDS)


@contextlib.contextmanager
def kubelet_at(path: Path) -> Iterator[Kubelet]:
    """A kubelet that is connected to a socket."""
    options = (("grpc.default_authority", "localhost"),)
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        yield Kubelet(
            csi_pb2_grpc.NodeStub(channel),
            csi_pb2_grpc.IdentityStub(channel),
            registration_services.RegistrationStub(channel),
        )


@contextlib.contextmanager
def rejected(code: grpc.StatusCode, text: str) -> Iterator[None]:
    """Expect a status with a text (a pattern) in its message."""
    with pytest.raises(grpc.RpcError) as error:
        yield
    status = error.value
    assert isinstance(status, grpc.Call)
    assert status.code() == code, status.details()
    assert re.search(text, status.details() or ""), status.details()


def request(uid: str, path: str, **changes: object) -> csi_pb2.NodePublishVolumeRequest:
    """The request of a kubelet 1.20.2 for an inline volume of `docs/mount.md`, with changes."""
    prefix = "csi.storage.k8s.io"
    fields: dict[str, object] = {
        "volume_id": "csi-" + "a" * 64,
        "target_path": path,
        "volume_capability": csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(mode=1),
        ),
        "readonly": True,
        "volume_context": {
            f"{prefix}/pod.name": "web-0",
            f"{prefix}/pod.namespace": "shop",
            f"{prefix}/pod.uid": uid,
            f"{prefix}/serviceAccount.name": "default",
            f"{prefix}/ephemeral": "true",
        },
    }
    return csi_pb2.NodePublishVolumeRequest(**(fields | changes))  # type: ignore[arg-type]
