"""Processes in network namespaces of their own, and what ip(8) says inside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, held by a process; `directory` is its /proc/<pid>, open."""

    pid: int
    directory: int

    def ip(self, *arguments: str) -> Any:
        """Return what `ip -j` prints inside; for commands that print nothing, None."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "ip", "-j", "-d", "-s", *arguments],
            check=True,
            capture_output=True,
        )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def batch(self, *lines: str) -> None:
        """Run lines of ip(8) inside, each ended, in one process."""
        subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "ip", "-batch", "-"],
            input="".join(lines).encode(),
            check=True,
            capture_output=True,
        )


@contextmanager
def network_namespace() -> Iterator[Namespace]:
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        directory = os.open(f"/proc/{process.pid}", os.O_RDONLY)
        try:
            yield Namespace(process.pid, directory)
        finally:
            os.close(directory)
    finally:
        process.kill()
        process.communicate()
