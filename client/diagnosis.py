"""Why a connection to the agent's socket fails.

gRPC says only UNAVAILABLE. This looks at the socket itself, with stat(2) and a
connect(2) that never blocks (unix(7)), and says what a person can act on.
"""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

from netutil.client.connection import Place
from netutil.client.errors import Denied, NetUtilError, Unavailable, Unreachable

_LONGEST_PATH_BYTES = 107
_UNAVAILABLE = "UNAVAILABLE"
_RESTART = "the agent may be restarting; a pod must mount the directory, not the socket file in it"


def why_unreachable(path: str, place: Place) -> NetUtilError | None:
    """What is wrong with the socket at `path`; None if a connection can be made.

    `Unavailable` may mend itself (the agent is about to bind), `Unreachable` and
    `Denied` do not.
    """
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH_BYTES:
        return _unreachable(path, f"is longer than {_LONGEST_PATH_BYTES} bytes", "PATH_TOO_LONG")
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return _missing(path, place)
    except NotADirectoryError:
        return _unreachable(path, "leads through a file", "SOCKET_DIRECTORY_MISSING", place.advice)
    except PermissionError:
        return _denied(path, place)
    except OSError as error:
        return _other(path, error)
    if not stat.S_ISSOCK(mode):
        return _unreachable(path, "is not a socket", "NOT_A_SOCKET", place.advice)
    return _refused(path, place)


def _missing(path: str, place: Place) -> NetUtilError:
    directory = Path(path).parent
    if not directory.is_dir():
        return Unreachable(
            f"directory {directory} of the socket does not exist",
            _UNAVAILABLE,
            "SOCKET_DIRECTORY_MISSING",
            path,
            place.advice,
        )
    return Unavailable(
        f"socket {path} does not exist", _UNAVAILABLE, "SOCKET_MISSING", path, place.advice
    )


def _refused(path: str, place: Place) -> NetUtilError | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return Unavailable(
                f"socket {path} exists but nobody listens on it",
                _UNAVAILABLE,
                "NOBODY_LISTENS",
                path,
                _RESTART,
            )
        except BlockingIOError:
            return Unavailable(
                f"the agent at {path} accepts no more connections",
                _UNAVAILABLE,
                "AGENT_BUSY",
                path,
            )
        except PermissionError:
            return _denied(path, place)
        except FileNotFoundError:
            return _missing(path, place)
        except OSError as error:
            return _other(path, error)
    return None


def _denied(path: str, place: Place) -> Denied:
    return Denied(
        f"permission denied on socket {path}",
        "PERMISSION_DENIED",
        "SOCKET_NOT_PERMITTED",
        path,
        place.advice,
    )


def _unreachable(path: str, what: str, reason: str, advice: str = "") -> Unreachable:
    return Unreachable(f"socket path {path} {what}", _UNAVAILABLE, reason, path, advice)


def _other(path: str, error: OSError) -> Unavailable:
    name = errno.errorcode.get(error.errno or 0, "")
    return Unavailable(
        f"cannot connect to socket {path}: {error.strerror}", _UNAVAILABLE, name, path
    )
