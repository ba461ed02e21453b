"""The client programs: how each is built, under `build/interop`, and started."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google.rpc
import pytest

from tests.support.cache import locked
from tests.support.repository import ROOT

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "interop"
PROTO_PATH = (ROOT / "proto", HERE, Path(google.rpc.__path__[0]).parents[1])
"""Where `netutil/v1alpha/netutil.proto`, `health.proto` and `google/rpc/status.proto` are."""
NETUTIL = "netutil/v1alpha/netutil.proto"
GO_BINARIES = "/usr/lib/go-1.19/bin"
PACKAGES = (
    *("curl", "nghttp2-client"),
    *("g++", "pkg-config", "protobuf-compiler", "protobuf-compiler-grpc", "libgrpc++-dev"),
    *("golang-1.19-go", "protoc-gen-go", "protoc-gen-go-grpc", "golang-google-grpc-dev"),
    "golang-github-golang-protobuf-1-5-dev",
)
"""Debian's, for the clients. npm is taken as it comes with the machine's Node.js."""
TIMEOUT_SECONDS = 90.0


@dataclass(frozen=True)
class Program:
    """A client that is there. `targets` are the forms of a Unix socket's name that it takes."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ("unix:{path}", "unix://{path}")

    def command(self, path: str, case: str, authority: str | None = None) -> list[str]:
        """Return the command that calls the socket at a path, by the first form of its name."""
        return self.with_target(self.targets[0].format(path=path), case, authority)

    def with_target(self, target: str, case: str, authority: str | None = None) -> list[str]:
        return [*self.argv, target, case, *([] if authority is None else [authority])]

    def run(self, command: Sequence[str]) -> dict[str, Any]:
        """The result of a command of this program."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return self.result(done.stdout)

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A process of this program, for cases that print a line before their result."""
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def result(output: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def program(name: str) -> Program:
    """Return a client, built if need be; skip the test where what builds it is missing."""
    return PROGRAMS[name]()


def needs(*commands: str, path: str | None = None) -> None:
    """Skip where a command is missing; `make interop` installs all of them."""
    missing = [each for each in commands if shutil.which(each, path=path) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; make interop installs that")


def _grpcio() -> Program:
    return Program("grpcio", (sys.executable, "-m", "tests.interop.grpcio_sync"))


def _grpcio_aio() -> Program:
    return Program("grpcio-aio", (sys.executable, "-m", "tests.interop.grpcio_aio"))


def _grpc_js() -> Program:
    needs("node", "npm")
    directory = _built("js", [*(HERE / "js").iterdir()], _build_js)
    environment = {"NETUTIL_PROTO_PATH": ":".join(map(str, PROTO_PATH))}
    return Program("grpc-js", ("node", str(directory / "client.js")), environment)


def _build_js(directory: Path) -> None:
    shutil.copytree(HERE / "js", directory, dirs_exist_ok=True)
    _run(directory, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")


def _grpc_go() -> Program:
    needs("go", path=GO_BINARIES)
    needs("protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    directory = _built("go", [HERE / "go" / "main.go", ROOT / "proto" / NETUTIL], _build_go)
    # Debian's grpc-go has no resolver of its own for `unix:`.
    targets = ("unix:{path}", "unix://{path}", "dial:{path}", "passthrough:///unix://{path}")
    return Program("grpc-go", (str(directory / "client"),), targets=targets)


def _build_go(directory: Path) -> None:
    package = directory / "src" / "example.org" / "interop"
    package.mkdir(parents=True)
    shutil.copy(HERE / "go" / "main.go", package)
    options = ["module=example.org/interop", f"M{NETUTIL}=example.org/interop/netutilpb"]
    for plugin in ("go", "go-grpc"):
        words = [f"--{plugin}_opt={option}" for option in options]
        _protoc(package, f"--{plugin}_out=.", *words, NETUTIL)
    # In GOPATH mode, where Debian's packages lie.
    environment = {
        "PATH": f"{GO_BINARIES}:{os.environ['PATH']}",
        "GOCACHE": str(Path.home() / ".cache" / "netutil" / "go-build"),
        "GOPATH": f"{directory}:/usr/share/gocode",
        "GO111MODULE": "off",
    }
    program = str(directory / "client")
    _run(package, "go", "build", "-o", program, ".", environment=environment)


def _grpc_cpp() -> Program:
    needs("g++", "pkg-config", "protoc", "grpc_cpp_plugin")
    sources = [HERE / "cpp" / "client.cc", HERE / "health.proto", ROOT / "proto" / NETUTIL]
    directory = _built("cpp", sources, _build_cpp)
    return Program("grpc-c++", (str(directory / "client"),))


def _build_cpp(directory: Path) -> None:
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    _protoc(directory, "--cpp_out=.", "--grpc_out=.", plugin, NETUTIL, "health.proto")
    errors = ("google/rpc/status.proto", "google/rpc/error_details.proto")
    _protoc(directory, "--cpp_out=.", *errors)
    own = ("-Wall", "-Wextra", "-Werror", str(HERE / "cpp" / "client.cc"))
    generated = [(str(each),) for each in sorted(directory.rglob("*.pb.cc"))]
    objects = [f"{number}.o" for number in range(1 + len(generated))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compile_ = ("g++", "-std=c++17", "-O0", "-I.", "-c", "-o")
        jobs = [
            pool.submit(_run, directory, *compile_, name, *words)
            for name, words in zip(objects, [own, *generated], strict=True)
        ]
        for job in jobs:
            job.result()
    libraries = _run(directory, "pkg-config", "--libs", "grpc++", "protobuf").split()
    _run(directory, "g++", "-o", "client", *objects, *libraries)


PROGRAMS: dict[str, Callable[[], Program]] = {
    "grpcio": _grpcio,
    "grpcio-aio": _grpcio_aio,
    "grpc-js": _grpc_js,
    "grpc-go": _grpc_go,
    "grpc-c++": _grpc_cpp,
}


def _built(name: str, sources: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """Return the directory of what was built from the sources, built now if they changed."""
    digest = hashlib.sha256()
    for source in [*sources, Path(__file__)]:
        digest.update(source.read_bytes())
    directory = BUILD / f"{name}-{digest.hexdigest()[:16]}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with locked(f"interop-{name}"):
        if not directory.is_dir():
            for old in BUILD.glob(f"{name}-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=".fresh-", dir=BUILD) as scratch:
                fresh = Path(scratch, name)
                fresh.mkdir()
                build(fresh)
                fresh.rename(directory)
    return directory


def _protoc(directory: Path, *words: str) -> None:
    _run(directory, "protoc", *(f"-I{path}" for path in PROTO_PATH), *words)


def _run(directory: Path, *command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
    return done.stdout
