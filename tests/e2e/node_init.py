"""The first process of a node's place: makes its mounts and network, runs a command, reaps.

Runs as a script (`python -I -S node_init.py JSON`) in new mount, network, PID and UTS
namespaces.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

# linux/mount.h
_BIND, _REC, _PRIVATE, _SHARED = 4096, 1 << 14, 1 << 18, 1 << 20
_EMPTY = ("/run", "/var/lib", "/var/log")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    init: dict[str, Any] = json.loads(sys.argv[1])
    _mount("none", "/", None, _REC | _PRIVATE)
    for path in _EMPTY:
        own = init["directory"] + path
        os.makedirs(own)
        _mount(own, path, None, _BIND)
    # A mount point for what the kubelet and the runtime mount, as on a host with systemd.
    _mount("none", "/", None, _REC | _SHARED)
    _mount("proc", "/proc", "proc", 0)
    socket.sethostname(init["hostname"])
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{init['address']}/32", "dev", "lo"),
    ):
        subprocess.run(["ip", *words], check=True)
    return _run(init["command"])


def _run(command: list[str]) -> int:
    """Run the command to its end, and reap whatever is left to this process until then."""
    child = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"mount {source} at {target}")


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)
