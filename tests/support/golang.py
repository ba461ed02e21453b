"""Building Go programs with Debian's Go and grpc-go: in GOPATH mode, where its packages lie."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = (
    *("golang-1.19-go", "protobuf-compiler", "protoc-gen-go", "protoc-gen-go-grpc"),
    *("golang-google-grpc-dev", "golang-github-golang-protobuf-1-5-dev"),
)
BINARIES = "/usr/lib/go-1.19/bin"
_CACHE = Path.home() / ".cache" / "netutil" / "go-build"


def environment(gopath: Path) -> dict[str, str]:
    """Return the environment of a build whose sources lie in `src` of a directory."""
    return {
        "PATH": f"{BINARIES}:{os.environ['PATH']}",
        "HOME": str(gopath),
        "GOCACHE": str(_CACHE),
        "GOPATH": f"{gopath}:/usr/share/gocode",
        "GO111MODULE": "off",
    }
