"""Why a connection to the agent's socket fails.

gRPC says only UNAVAILABLE. This looks at the socket itself, with stat(2) and a
connect(2) that never blocks (unix(7)), and says what a person can act on.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from netutil.client.connection import Place
from netutil.client.errors import Denied, NetUtilError, Unavailable, Unreachable

_LONGEST_PATH_BYTES = 107
_RESTART = "the agent may be restarting; a pod must mount the directory, not the socket file in it"


def why_unreachable(path: str, place: Place) -> NetUtilError | None:
    """What is wrong with the socket at `path`; None if a connection can be made.

    `Unavailable` may mend itself (the agent is about to bind), `Unreachable` and
    `Denied` do not.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        return _unreachable(
            f"socket path {path} is longer than {_LONGEST_PATH_BYTES} bytes", "PATH_TOO_LONG", path
        )
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return _unreachable(f"{path} is not a socket", "NOT_A_SOCKET", path, place.if_missing)
        _connect(path)
    except OSError as error:
        return _explained(error, path, place)
    return None


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        probe.connect(path)


def _explained(error: OSError, path: str, place: Place) -> NetUtilError:
    match error:
        case FileNotFoundError() if Path(path).parent.is_dir():
            return _unavailable(
                f"socket {path} does not exist", "SOCKET_MISSING", path, place.if_missing
            )
        case FileNotFoundError() | NotADirectoryError():
            return _unreachable(
                f"directory {Path(path).parent} of the socket does not exist",
                "SOCKET_DIRECTORY_MISSING",
                path,
                place.if_missing,
            )
        case ConnectionRefusedError():
            return _unavailable(
                f"socket {path} exists but nobody listens on it", "NOBODY_LISTENS", path, _RESTART
            )
        case BlockingIOError():
            return _unavailable(
                f"the agent at {path} accepts no more connections", "AGENT_BUSY", path
            )
        case PermissionError():
            return Denied(
                f"permission denied on socket {path}",
                "PERMISSION_DENIED",
                reason="SOCKET_NOT_PERMITTED",
                read=path,
                advice=place.if_denied,
            )
    return _unavailable(f"cannot connect to socket {path}: {error.strerror}", "SOCKET_BROKEN", path)


def _unavailable(sentence: str, reason: str, path: str, advice: str = "") -> Unavailable:
    return Unavailable(sentence, "UNAVAILABLE", reason=reason, read=path, advice=advice)


def _unreachable(sentence: str, reason: str, path: str, advice: str = "") -> Unreachable:
    return Unreachable(sentence, "UNAVAILABLE", reason=reason, read=path, advice=advice)
