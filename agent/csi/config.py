"""The flags of `netutil-csi` and their environment variables. A flag wins."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import NoReturn

MAX_SOCKET_PATH_BYTES = 107
"""sun_path of unix(7) holds 108 bytes, the last of them 0."""
SUFFIX_LENGTH = len("-12345678")
"""Of a name that is not used yet, and of a temporary name."""

_MAX_NAME = 63
_MAX_NODE_ID_BYTES = 128
# CSI: GetPluginInfoResponse.name, in lower case, as the name of a CSIDriver object has to be.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# RFC 1123, as Kubernetes checks the names of nodes.
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# The path goes into the address of a gRPC server: a URI.
_COMPONENT = re.compile(r"[A-Za-z0-9._+~-]+")
_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True)
class Config:
    """Values of the flags."""

    name: str
    node_name: str
    source: str
    kubelet_root: str
    check: bool
    log_format: str
    log_level: str

    @property
    def pods(self) -> str:
        """The kubelet's directory of pods."""
        return f"{self.kubelet_root}/pods"

    @property
    def endpoint(self) -> str:
        """The socket at which the kubelet calls the driver, by the same path on the host."""
        return f"{self.kubelet_root}/plugins/{self.name}/csi.sock"

    @property
    def registry(self) -> str:
        """The directory that the kubelet watches for sockets of plugins."""
        return f"{self.kubelet_root}/plugins_registry"

    @property
    def node_id(self) -> str:
        """The node's name, or its SHA-256 if the name is longer than 128 bytes."""
        if len(self.node_name) <= _MAX_NODE_ID_BYTES:
            return self.node_name
        return hashlib.sha256(self.node_name.encode("ascii")).hexdigest()


def driver_version() -> str:
    """Return the version of the distribution, which the driver reports to the kubelet too."""
    return version("kube-netutil")


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the settings. Ends the process with one line and status 2 for an ill-formed value."""
    parser = _Parser(
        prog="netutil-csi",
        description="The CSI driver of netutil. Mounts the directory of the agent's socket in pods,"
        " as an inline (ephemeral) volume, for namespaces that forbid hostPath volumes.",
        epilog="Each flag has an environment variable, as NETUTIL_CSI_SOURCE for --source. The"
        " flag overrides the variable.",
        allow_abbrev=False,
    )

    def flag(name: str, default: str, kind: Callable[[str], str], text: str) -> None:
        given = environment.get(variable_of(name), default)
        shown = f"{text} (default: {default})" if default else text
        parser.add_argument(
            f"--{name}", default=given, type=kind, help=shown, metavar=kind.__name__
        )

    flag("name", "csi.netutil", NAME, "name of the CSIDriver object")
    flag(
        "node-name",
        environment.get("NODE_NAME", ""),
        NODE,
        "name of this node; taken from NODE_NAME if not given",
    )
    flag("source", "/run/netutil", DIRECTORY, "directory of the agent's socket")
    flag("kubelet-root", "/var/lib/kubelet", DIRECTORY, "the kubelet's --root-dir")
    flag("log-format", "text", _choice("FORMAT", *_FORMATS), "text or json")
    flag("log-level", "info", _choice("LEVEL", *_LEVELS), "debug, info, warning or error")
    parser.add_argument(
        "--check", action="store_true", help="check the health of the running driver; exit 0 or 1"
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"netutil-csi {driver_version()} (Python {python_version()},"
        f" grpcio {version('grpcio')})",
        help="print the versions of driver, Python and grpcio",
    )
    config = Config(**vars(parser.parse_args(argv)))
    # The longest of all paths at which the driver binds a socket, or to which it renames one.
    for longest in (
        f"{config.endpoint}",
        f"{config.registry}/.{config.name}-12345678",
        f"{config.registry}/{config.name}-12345678-reg.sock",
    ):
        if len(longest) > MAX_SOCKET_PATH_BYTES:
            parser.error(
                f"--kubelet-root and --name are too long: {longest} has more than"
                f" {MAX_SOCKET_PATH_BYTES} bytes"
            )
    return config


def variable_of(flag_name: str) -> str:
    """Return the environment variable of a flag."""
    return "NETUTIL_CSI_" + flag_name.upper().replace("-", "_")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"netutil-csi: {message}; see netutil-csi --help\n")


def _choice(name: str, *accepted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in accepted:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(accepted)}")
        return text

    check.__name__ = name
    return check


def NAME(text: str) -> str:
    """The name of a CSI driver: a DNS name of at most 63 characters."""
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no DNS name in lower case of at most {_MAX_NAME} characters"
        )
    return text


def NODE(text: str) -> str:
    """A node's name."""
    if not _NODE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a node; set it, or NODE_NAME")
    return text


def DIRECTORY(text: str) -> str:
    """An absolute path of a directory below the root, without "." and ".."."""
    root, *names = text.split("/")
    ordinary = all(_COMPONENT.fullmatch(name) and name not in (".", "..") for name in names)
    if root or not names or not ordinary:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no absolute path of letters, digits and ._+~- without a slash at its end"
        )
    return text
