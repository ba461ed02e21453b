"""A process that cannot be mistaken for another: a pidfd and /proc/<pid> held open together.

A pid alone may be given to a new process between two reads. A directory
descriptor of /proc/<pid> goes dead with its process (reads fail with ESRCH), and
a pidfd tells whether the process still runs (pidfd_open(2)): whoever reads
through the descriptor and then finds the pidfd alive has read that process.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from netutil.agent.errors import Reason, Unidentified, shortage
from netutil.agent.parsers.process import ProcessStatus, Stat, parse_stat, parse_status

_READ_BYTES = 64 * 1024


class PinnedProcess:
    """One process of this host, pinned. Close it when the connection ends.

    Not safe for use from several threads; a reader on another thread takes a
    descriptor of its own with `duplicate`. A pin that was handed to a read whose
    caller gave up has nobody to close it: it is closed when it is forgotten.
    """

    __slots__ = ("_directory", "_pidfd", "pid")

    def __init__(self, pid: int, pidfd: int, directory: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._directory = directory

    def alive(self) -> bool:
        """Return whether the process still runs; False after `close`."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def ensure_alive(self) -> None:
        """Raise `Unidentified` if the process is gone: what was read before must not be used."""
        if not self.alive():
            raise gone(self.pid)

    def read(self, name: str) -> bytes:
        """Return the content of /proc/<pid>/<name>.

        For small files that no workload can make slow. Raises `Unidentified` if the process
        is gone, `OverLimit` for a shortage, OSError for every other failure.
        """
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory())
        except (ProcessLookupError, FileNotFoundError):
            self.ensure_alive()
            raise
        except OSError as error:
            raise shortage(error, f"/proc/{self.pid}/{name}") or error from None
        try:
            return _read_all(descriptor)
        except ProcessLookupError:
            raise gone(self.pid) from None
        except OSError as error:
            raise shortage(error, f"/proc/{self.pid}/{name}") or error from None
        finally:
            os.close(descriptor)

    def status(self) -> ProcessStatus:
        """Return /proc/<pid>/status, parsed."""
        return parse_status(self.read("status").decode("utf-8", errors="replace"))

    def stat(self) -> Stat:
        """Return /proc/<pid>/stat, parsed."""
        return parse_stat(self.read("stat").decode("utf-8", errors="replace"))

    def started_at(self) -> datetime:
        """Return when the process was started (UTC), by the clocks as they are now.

        Field 22 of proc_pid_stat(5) counts from the start of the node, with suspended time.
        """
        since_start = self.stat().start_ticks / os.sysconf("SC_CLK_TCK")
        age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - since_start
        return datetime.now(UTC) - timedelta(seconds=age_seconds)

    def cgroup_text(self) -> str:
        """Return /proc/<pid>/cgroup. Bytes of a name that are not UTF-8 are kept as surrogates."""
        return self.read("cgroup").decode("utf-8", errors="surrogateescape")

    def directory(self) -> int:
        """Return the descriptor of /proc/<pid>. Raises `Unidentified` after `close`."""
        if self._directory < 0:
            raise gone(self.pid)
        return self._directory

    def duplicate(self) -> PinnedProcess:
        """Return a second, independent pin of the same process, for another thread.

        Raises `Unidentified` after `close`, `OverLimit` for a shortage of descriptors.
        """
        directory = -1
        try:
            directory = os.dup(self.directory())
            return PinnedProcess(self.pid, os.dup(self._pidfd), directory)
        except OSError as error:
            if directory >= 0:
                os.close(directory)
            raise shortage(error, f"pidfd and /proc/{self.pid}") or error from None

    def close(self) -> None:
        """Let the process go. May be called again."""
        for descriptor in (self._pidfd, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._pidfd = self._directory = -1

    __del__ = close


@dataclass(frozen=True, slots=True)
class Credentials:
    """SO_PEERCRED of a connection, as the agent's own namespaces show it (unix(7))."""

    pid: int
    uid: int
    gid: int


def gone(pid: int) -> Unidentified:
    """Return the error for a process that ended."""
    return Unidentified(
        Reason.PEER_GONE,
        f"The process (host pid {pid}) that is asked about, or that asks, has ended.",
        read=f"/proc/{pid}",
        advice="Open the connection in the process that asks, and keep that process running.",
    )


def _read_all(descriptor: int) -> bytes:
    first = os.read(descriptor, _READ_BYTES)
    chunks = [first]
    while chunks[-1]:
        chunks.append(os.read(descriptor, _READ_BYTES))
    return b"".join(chunks)
