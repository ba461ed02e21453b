"""Attacks on values held of a container. `python -m tests.support.attacks.cgroup_churn NAME`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.support import http2

_METHODS = ("GetCPUInfo", "GetHugepages")


def _own_cgroups() -> list[Path]:
    """Return the own cgroup in each hierarchy that has no cpuset, which would have to be filled.

    Hierarchies are as in mounts of the kind "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu".
    """
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, options, *_ = line.split(" ")
        for controllers, path in paths.items():
            is_own = kind == ("cgroup" if controllers else "cgroup2")
            if is_own and {*filter(None, controllers.split(","))} <= {*options.split(",")}:
                found.append(Path(mount_point) / path.lstrip("/"))
    return [directory for directory in found if not (directory / "cpuset.cpus").exists()]


def _question() -> bytes:
    parts = [http2.opening()]
    parts += [
        http2.request(1 + 2 * number, http2.request_headers(method))
        for number, method in enumerate(_METHODS)
    ]
    return b"".join(parts)


def ask() -> None:
    """Ask once: what the agent holds of a container that has asked is held from then on."""
    with http2.connect() as connection:
        connection.sendall(_question())
        answered = 0
        while answered < len(_METHODS):
            frame = http2.read_frame(connection)
            answered += frame.kind == http2.HEADERS and bool(frame.flags & http2.END_STREAM)


def come_and_go() -> None:
    """A cgroup of another name for each connection, below the container's, and away with it."""
    directories, asked = _own_cgroups(), _question()
    for number in count():
        made = [directory / f"churn-{os.getpid()}-{number}" for directory in directories]
        for one in made:
            one.mkdir()
            (one / "cgroup.procs").write_text("0")
        try:
            with http2.connect() as connection:
                connection.sendall(asked)
                connection.settimeout(1.0)
                connection.recv(4096)
        except OSError:
            time.sleep(0.001)
        for directory, one in zip(directories, made, strict=True):
            (directory / "cgroup.procs").write_text("0")
            one.rmdir()


def rewrite() -> None:
    """Other limits and sets all the time, below one connection that asks all the time."""
    directories, asked = _own_cgroups(), _question()
    for number in count():
        for directory in directories:
            for name in ("cpu.shares", "cpu.weight"):
                if (directory / name).exists():
                    (directory / name).write_text(str(2 + number % 9000))
        if number % 64:
            continue
        try:
            with http2.connect() as connection:
                connection.sendall(asked)
                connection.settimeout(1.0)
                connection.recv(4096)
        except OSError:
            time.sleep(0.001)


CGROUP_CHURN: dict[str, Callable[[], None]] = {
    "cgroups-come-and-go": come_and_go,
    "cgroups-rewritten": rewrite,
}

if __name__ == "__main__":
    {**CGROUP_CHURN, "ask": ask}[sys.argv[1]]()
