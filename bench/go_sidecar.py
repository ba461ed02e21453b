"""The Go sidecar of `bench/go`: built with Debian's Go and grpc-go, and started in a pod."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import node
from tests.support import golang
from tests.support.lab import LabContainer, LabProcess
from tests.support.packages import ensure_installed

_SOURCE = node.TREE / "bench" / "go" / "main.go"
_PROTO = node.TREE / "proto" / "netutil" / "v1alpha" / "netutil.proto"
_GOPATH = node.TREE / "build" / "go"
_PROGRAM = _GOPATH / "bin" / "sidecar"
_IMPORT_PATH = "example.org/sidecar"
_CPUSET_FILES = ("cpuset.cpus.effective", "cpuset.effective_cpus")
"""Of cgroup v2 and of v1."""


def built() -> Path:
    """Return the program, built if its sources are newer. Raises CalledProcessError."""
    newest = max(one.stat().st_mtime for one in (_SOURCE, _PROTO))
    if not _PROGRAM.exists() or _PROGRAM.stat().st_mtime < newest:
        ensure_installed(*golang.PACKAGES)
        _build()
    return _PROGRAM


@contextmanager
def running(app: LabContainer, socket: Path, directory: Path) -> Iterator[LabProcess]:
    """Run it in a pod's container, at a socket that pods see as /etc/netutil/NAME.

    The annotation of the pod is put into a file of `directory`, as a downward API volume does.
    """
    status = directory / "network-status.json"
    status.write_text(app.pod.annotations[node.NETWORK_STATUS])
    argv = [str(built()), f"/etc/netutil/{socket.name}", str(_cpuset_file(app)), str(status)]
    process = app.spawn(argv, stdout=None, stderr=None)
    try:
        node.wait_for_socket(socket)
        yield process
    finally:
        process.kill()
        process.wait()


def _cpuset_file(app: LabContainer) -> Path:
    candidates = [d / name for d in app.cgroups for name in _CPUSET_FILES]
    return next(path for path in candidates if path.exists())


def _build() -> None:
    source = _GOPATH / "src" / _IMPORT_PATH
    source.mkdir(parents=True, exist_ok=True)
    shutil.copy(_SOURCE, source)
    generated = f"Mnetutil/v1alpha/netutil.proto={_IMPORT_PATH}/netutilpb"
    options = (
        argument
        for plugin in ("go", "go-grpc")
        for argument in (
            f"--{plugin}_out={source}",
            f"--{plugin}_opt=module={_IMPORT_PATH}",
            f"--{plugin}_opt={generated}",
        )
    )
    environment = golang.environment(_GOPATH)
    proto = node.TREE / "proto"
    protoc = ["protoc", "-I", str(proto), *options, str(_PROTO.relative_to(proto))]
    subprocess.run(protoc, env=environment, check=True)
    build = ["go", "build", "-o", str(_PROGRAM), _IMPORT_PATH]
    subprocess.run(build, env=environment, check=True)
