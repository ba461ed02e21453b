"""Observes a lab from outside."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.lab import why_no_lab
from tests.support.lab.cgroups import find_hierarchies

needs_lab = pytest.mark.skipif(why_no_lab() is not None, reason=f"the lab {why_no_lab()}")

_FAKE_AGENT = """
import socket, sys, signal
path = next(a for a in sys.argv if a.startswith("--socket=")).partition("=")[2]
listener = socket.socket(socket.AF_UNIX)
import os
listener.bind(path + ".new"); listener.listen(); os.rename(path + ".new", path)
print("listening", *sys.argv[1:], file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True: signal.pause()
"""
FAKE_AGENT = [sys.executable, "-c", _FAKE_AGENT]
"""An agent that only listens."""


def cgroup_paths(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return [line.split(":", 2)[2] for line in lines]


def namespaces(pid: int) -> dict[str, int]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in kinds}


def traces(name: str) -> list[str]:
    """Whatever of a lab is still there."""
    found = [str(h.directory / name) for h in find_hierarchies() if (h.directory / name).exists()]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [line for line in mounts if name in line]
    found += [str(path) for path in (Path("/tmp") / name,) if path.exists()]
    for process in psutil.process_iter():
        try:
            if any(f"/{name}" in path for path in cgroup_paths(process.pid)):
                found.append(f"process {process.pid}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    found += [
        name for name in os.listdir("/sys/class/net") if re.fullmatch("lab[0-9a-f]{10}", name)
    ]
    return found
