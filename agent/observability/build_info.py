"""The versions of this agent and of what its answers depend on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path
from platform import python_version

_DISTRIBUTION = "kube-netutil"
_SERVER = Path(__file__).parents[1] / "grpcserver"


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Versions as their distributions state them.

    `hpack` belongs to the agent's gRPC server, `protobuf` encodes the answers. `server` is
    "compiled" where the gRPC server is machine code, as in the image, else "interpreted".
    """

    version: str
    python: str
    grpcio: str
    hpack: str
    protobuf: str
    server: str

    def __str__(self) -> str:
        """Return the text of `netutil-agent --version` after the name of the command."""
        return (
            f"{self.version} (Python {self.python}, grpcio {self.grpcio}, hpack {self.hpack},"
            f" protobuf {self.protobuf}, {self.server})"
        )


def read_build_info() -> BuildInfo:
    """Return the versions from the metadata of the installed distributions.

    Raises PackageNotFoundError, which names the distribution, if one of them is not installed.
    """
    return BuildInfo(
        version=version(_DISTRIBUTION),
        python=python_version(),
        grpcio=version("grpcio"),
        hpack=version("hpack"),
        protobuf=version("protobuf"),
        server="compiled" if is_compiled(_SERVER) else "interpreted",
    )


def is_compiled(server: Path) -> bool:
    """Return whether Python loads machine code for the gRPC server of a directory.

    Python does so where there is some: an extension module precedes a source of the same name.
    """
    return any((server / f"http2{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
