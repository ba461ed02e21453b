"""The versions of this agent and of what its answers depend on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version

_DISTRIBUTION = "kube-netutil"


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Versions as their distributions state them.

    `hpack` belongs to the agent's gRPC server, `protobuf` encodes the answers.
    """

    version: str
    python: str
    grpcio: str
    hpack: str
    protobuf: str

    def __str__(self) -> str:
        """Return the text of `netutil-agent --version` after the name of the command."""
        return (
            f"{self.version} (Python {self.python}, grpcio {self.grpcio}, hpack {self.hpack},"
            f" protobuf {self.protobuf})"
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
    )
