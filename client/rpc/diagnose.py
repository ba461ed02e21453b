"""Why a connection to the agent's socket fails.

gRPC says only UNAVAILABLE. This module checks the socket itself, with stat(2) and a
connect(2) that never blocks (unix(7)), and returns an error that a person can act on.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from netutil.client.errors import NetUtilError, PermissionDenied, Unavailable, Unreachable
from netutil.client.mounts import read_filesystem_type
from netutil.client.rpc.endpoint import Endpoint

_MAX_PATH_BYTES = 107
# How the kernel of a VM or sandbox shows a directory that another kernel shares with it.
_SHARED = {
    "virtiofs": "a VM's, as of Kata",
    "9p": "a sandbox's or a VM's, as of gVisor or Kata",
}


def why_unreachable(path: str, endpoint: Endpoint) -> NetUtilError | None:
    """What is wrong with the socket at `path`; None if a connection can be made.

    `Unavailable` may end by itself (the agent is about to bind); `Unreachable` and
    `PermissionDenied` do not.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        return _unreachable(
            f"socket path {path} is longer than {_MAX_PATH_BYTES} bytes",
            "PATH_TOO_LONG",
            path,
            "mount the directory of the socket at a shorter path; the default is"
            f" {endpoint.default_path}",
        )
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISSOCK(mode):
            return _not_a_socket(path, endpoint, is_directory=stat.S_ISDIR(mode))
        _connect(path)
    except OSError as error:
        return _explained(error, path, endpoint)
    return None


def _not_a_socket(path: str, endpoint: Endpoint, *, is_directory: bool) -> Unreachable:
    """A runtime makes a directory where a missing socket file was to be mounted."""
    name = Path(endpoint.default_path).name
    if is_directory and (Path(path) / name).is_socket():
        advice = f"name the socket in it: {path}/{name}"
    else:
        advice = (
            f"name the agent's socket: {endpoint.option}, {endpoint.variable}, by default"
            f" {endpoint.default_path}; if that is what the path is, {endpoint.if_missing}"
        )
    kind = "a directory, not" if is_directory else "not"
    return _unreachable(f"{path} is {kind} a socket", "NOT_A_SOCKET", path, advice)


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        probe.connect(path)


def _explained(error: OSError, path: str, endpoint: Endpoint) -> NetUtilError:
    match error:
        case FileNotFoundError() if Path(path).parent.is_dir():
            return _unavailable(
                f"socket {path} does not exist", "SOCKET_MISSING", path, endpoint.if_missing
            )
        case FileNotFoundError() | NotADirectoryError():
            return _unreachable(
                f"directory {Path(path).parent} of the socket does not exist",
                "SOCKET_DIRECTORY_MISSING",
                path,
                endpoint.if_missing,
            )
        case ConnectionRefusedError():
            return _refused(path, endpoint)
        case BlockingIOError():
            return _unavailable(
                f"the agent at {path} accepts no more connections", "AGENT_BUSY", path
            )
        case PermissionError():
            return PermissionDenied(
                f"permission denied on socket {path}",
                "PERMISSION_DENIED",
                reason="SOCKET_NOT_PERMITTED",
                read=path,
                advice=endpoint.if_denied,
            )
    return _unavailable(f"cannot connect to socket {path}: {error.strerror}", "SOCKET_BROKEN", path)


def _refused(path: str, endpoint: Endpoint) -> NetUtilError:
    """ECONNREFUSED: this kernel knows no socket that listens there. Another kernel may have it.

    A Unix socket's name on a shared file system is the other kernel's (Kata: a connect ends in
    the guest; gVisor: pkg/sentry/fsimpl/gofer/socket.go says ECONNREFUSED for all that fails).
    """
    shared = read_filesystem_type(path)
    if shared not in _SHARED:
        return _unavailable(
            f"socket {path} exists, but nothing accepts connections on it",
            "NO_LISTENER",
            path,
            endpoint.if_refused,
        )
    return _unavailable(
        f"socket {path} refuses connections; it is on a {shared} mount, so this kernel is probably"
        f" {_SHARED[shared]}, and the socket is that of another kernel",
        "SOCKET_OF_ANOTHER_KERNEL",
        path,
        "a Unix socket cannot be reached from another kernel: run the pod without a VM or sandbox"
        " (gVisor: with runsc --host-uds=open); if this is none, see that the agent runs on the"
        " node",
    )


def _unavailable(sentence: str, reason: str, path: str, advice: str = "") -> Unavailable:
    return Unavailable(sentence, "UNAVAILABLE", reason=reason, read=path, advice=advice)


def _unreachable(sentence: str, reason: str, path: str, advice: str = "") -> Unreachable:
    return Unreachable(sentence, "UNAVAILABLE", reason=reason, read=path, advice=advice)
