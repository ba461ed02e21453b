"""A pinned process: a pidfd and its /proc/<pid> directory, held open together.

A pid alone may be given to a new process between two reads. A directory
descriptor of /proc/<pid> goes dead with its process (reads fail with ESRCH), and
a pidfd shows whether the process still runs (pidfd_open(2)): a
reader that reads through the descriptor and then finds the pidfd alive has read that process.

/proc/<pid> shows the first thread. That thread may end before the others do (pthread_exit(3) in
main); the process still runs then, and its pidfd says so, but the kernel shows a first thread
that has ended without namespaces and memory, and on cgroup v1 in the root cgroup. A reading goes
through a thread that runs: `PinnedProcess.through_running_thread` is the only place that finds it.
"""

from __future__ import annotations

import errno
import os
import re
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from netutil.agent.errors import Reason, Unauthenticated, resource_exhausted
from netutil.agent.parsers.process import (
    ProcessStatus,
    Stat,
    ThreadCredentials,
    parse_credentials,
    parse_stat,
    parse_status,
)

T = TypeVar("T")
MAX_THREADS_TRIED = 64
"""Threads of a process that are looked at to find one that runs. A thread that has ended is listed
only while it is the first one or a debugger holds it (ptrace(2))."""
_MAX_TRIES = 4
_READ_BYTES = 16 * 1024
# On cgroup v1 a thread that has ended is in the root cgroup (proc_cgroup_show in the kernel's
# kernel/cgroup/cgroup.c), so any other path on a line of v1 is of a thread that runs. Hierarchy 0
# is cgroup v2, where a thread that has ended keeps the path that it had.
_PATH_OF_RUNNING_THREAD = re.compile(r"^[1-9][0-9]*:[^:\n]*:/.", re.MULTILINE)


class _Descriptors:
    """A pidfd and a directory in /proc, which are closed with the last pin that has them."""

    __slots__ = ("_directory", "_pidfd")

    def __init__(self, pidfd: int, directory: int) -> None:
        self._pidfd = pidfd
        self._directory = directory

    def __del__(self) -> None:
        os.close(self._pidfd)
        os.close(self._directory)


class PinnedProcess:
    """One process of this host, pinned. Close it when the connection ends.

    Not safe for use from several threads: a reader on another thread takes a pin of its own with
    `share`, which keeps the descriptors open for as long as that pin has them. A pin that was
    handed to a read whose caller gave up is not closed explicitly: it is closed when it is
    garbage-collected.
    """

    __slots__ = ("_descriptors", "_directory", "_pidfd", "own_number", "pid")

    def __init__(
        self, pid: int, pidfd: int, directory: int, descriptors: _Descriptors | None = None
    ) -> None:
        """Take over the two descriptors. `descriptors` has them already where they are shared."""
        self.pid = pid
        self.own_number: int | None = None
        """The PID in the process's own PID namespace, which never changes; None until it is read
        (`identity.namespaces.find_process`)."""
        self._pidfd = pidfd
        self._directory = directory
        self._descriptors: _Descriptors | None = descriptors or _Descriptors(pidfd, directory)

    def has_number(self, pid: str) -> bool:
        """Return whether `pid`, of a request, is known to be the process in its own PID namespace.

        False while the number is not read, so also for the text "None".
        """
        return self.own_number is not None and pid == str(self.own_number)

    def alive(self) -> bool:
        """Return whether the process still runs; False after `close`."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def ensure_alive(self) -> None:
        """Raise `Unauthenticated` if the process has exited: then discard what was read before."""
        if not self.alive():
            raise process_exited(self.pid)

    def through_running_thread(self, read: Callable[[int], T]) -> T:
        """Return what `read` makes of the directory in /proc of a thread that runs.

        `read` gets the descriptor of /proc/<pid>, which shows the first thread, or if that
        thread has ended the descriptor of /proc/<pid>/task/<tid> of another one. `read` raises
        ProcessLookupError or FileNotFoundError for a thread that has ended, and may be called
        again. Raises `Unauthenticated` if the process has exited or none of its first
        `MAX_THREADS_TRIED` threads is found to run, `QuotaExceeded` for a shortage, and what `read`
        raises of a thread that runs. Any such thread will do, also where threads differ: a thread
        comes to another cgroup or namespace by the rights that it takes to bring the first one
        there, so a workload gains nothing by the choice.
        """
        missing: OSError | None = None
        for _ in range(_MAX_TRIES):
            try:
                return read(self.directory())
            except (ProcessLookupError, FileNotFoundError) as error:
                self.ensure_alive()
                missing = error
            # A thread that executes a program takes the first one's place (execve(2)), so the
            # first thread may run again at the next try.
            if not self._first_has_ended():
                continue
            thread = self._open_running_thread()
            if thread is None:
                missing = None
                continue
            try:
                return read(thread)
            except (ProcessLookupError, FileNotFoundError) as error:
                self.ensure_alive()
                missing = error
            finally:
                os.close(thread)
        if missing is None:  # all of its threads are ending
            raise process_exited(self.pid)
        if isinstance(missing, FileNotFoundError):
            raise missing
        raise _no_running_thread(self.pid)

    def read(self, name: str) -> bytes:
        """Return the content of /proc/<pid>/<name>: of the first thread, even if it has ended.

        For small files that no workload can make slow. Raises `Unauthenticated` if the process
        has exited, `QuotaExceeded` for a shortage, OSError for every other failure.
        """
        try:
            return read_file(self.directory(), name)
        except (ProcessLookupError, FileNotFoundError):
            self.ensure_alive()
            raise

    def status(self) -> ProcessStatus:
        """Return the parsed status file of a thread that runs."""
        return self.through_running_thread(thread_status)

    def stat(self) -> Stat:
        """Return the parsed stat file of the first thread, which started when the process did."""
        return parse_stat(self.read(f"task/{self.pid}/stat").decode("utf-8", errors="replace"))

    def started_at(self) -> datetime:
        """Return when the process was started (UTC), by the clocks as they are now.

        Field 22 of proc_pid_stat(5) counts from the start of the node, with suspended time.
        """
        since_start = self.stat().start_ticks / os.sysconf("SC_CLK_TCK")
        age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - since_start
        return datetime.now(UTC) - timedelta(seconds=age_seconds)

    def cgroup_text(self) -> str:
        """Return the cgroup file of a thread that runs.

        Bytes of a name that are not UTF-8 are kept as surrogates.
        """
        return self.through_running_thread(self._cgroup_text)

    def _cgroup_text(self, thread: int) -> str:
        text = read_file(thread, "cgroup").decode("utf-8", errors="surrogateescape")
        if _PATH_OF_RUNNING_THREAD.search(text) is None:
            first = thread == self._directory
            ended = self._first_has_ended() if first else thread_has_ended(thread)
            if ended:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return text

    def _first_has_ended(self) -> bool:
        """Return whether the first thread has ended, or is ending."""
        return thread_has_ended(self.directory())

    def _open_running_thread(self) -> int | None:
        """Return a new descriptor of the directory of a thread that runs, None if none does.

        Raises `Unauthenticated` if that is not known: the process has more threads than are tried.
        """
        tried = 0
        try:
            tasks = _open(self.directory(), "task", os.O_DIRECTORY)
        except (ProcessLookupError, FileNotFoundError):
            self.ensure_alive()
            return None
        try:
            with os.scandir(tasks) as listed:
                for entry in islice(listed, MAX_THREADS_TRIED):
                    tried += 1
                    try:
                        thread = _open(tasks, entry.name, os.O_DIRECTORY)
                    except (ProcessLookupError, FileNotFoundError):
                        continue
                    if not thread_has_ended(thread):
                        return thread
                    os.close(thread)
        except (ProcessLookupError, FileNotFoundError):
            self.ensure_alive()
        finally:
            os.close(tasks)
        if tried == MAX_THREADS_TRIED:
            raise _no_running_thread(self.pid)
        return None

    def fileno(self) -> int:
        """Return the pidfd, which is readable once the process has ended; -1 after `close`."""
        return self._pidfd

    def directory(self) -> int:
        """Return the descriptor of /proc/<pid>. Raises `Unauthenticated` after `close`."""
        if self._directory < 0:
            raise process_exited(self.pid)
        return self._directory

    def pidfd(self) -> int:
        """Return the pidfd. Raises `Unauthenticated` after `close`."""
        if self._pidfd < 0:
            raise process_exited(self.pid)
        return self._pidfd

    def share(self) -> PinnedProcess:
        """Return a second pin with the same descriptors, which the last of both closes.

        That is no system call. Raises `Unauthenticated` after `close`.
        """
        if self._descriptors is None:
            raise process_exited(self.pid)
        return PinnedProcess(self.pid, self._pidfd, self._directory, self._descriptors)

    def duplicate(self) -> PinnedProcess:
        """Return a second pin of the same process with descriptors of its own, to be waited for.

        Raises `Unauthenticated` after `close`, `QuotaExceeded` for a shortage of descriptors.
        """
        directory = -1
        try:
            directory = os.dup(self.directory())
            return PinnedProcess(self.pid, os.dup(self._pidfd), directory)
        except OSError as error:
            if directory >= 0:
                os.close(directory)
            raise resource_exhausted(error, f"pidfd and /proc/{self.pid}") or error from None

    def close(self) -> None:
        """Let the process go. May be called again."""
        self._pidfd = self._directory = -1
        self._descriptors = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """SO_PEERCRED of a connection, as the agent's own namespaces show it (unix(7))."""

    pid: int
    uid: int
    gid: int


def process_exited(pid: int) -> Unauthenticated:
    """Return the error for a process that ended."""
    return Unauthenticated(
        Reason.PEER_GONE,
        f"The process (host pid {pid}) that is asked about, or that asks, has ended.",
        read=f"/proc/{pid}",
        advice="Open the connection in the process that asks, and keep that process running.",
    )


def thread_status(thread: int) -> ProcessStatus:
    """Return the parsed status file of a thread whose directory in /proc is open.

    For `PinnedProcess.through_running_thread`: raises ProcessLookupError or FileNotFoundError if
    the thread has ended, OSError for every other failure.
    """
    status = parse_status(read_file(thread, "status").decode("utf-8", errors="replace"))
    if status.has_ended:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return status


def thread_credentials(thread: int) -> ThreadCredentials:
    """Return the credentials of a thread whose directory in /proc is open. As `thread_status`."""
    credentials = parse_credentials(_read_status(thread))
    if credentials.has_ended:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return credentials


def thread_has_ended(thread: int) -> bool:
    """Return whether a thread whose directory in /proc is open has ended, or is ending.

    A thread has its namespaces until then (exit_task_namespaces in the kernel's kernel/exit.c). The
    file `stat` says it too, but takes a reference to the memory of the process: the last user that
    drops it of a program that another one has replaced frees all of it, so `stat` is not for the
    event loop.
    """
    try:
        os.readlink("ns/net", dir_fd=thread)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except PermissionError:  # an agent without CAP_SYS_PTRACE, a security module
        return _stat_says_ended(thread)
    return False


def _stat_says_ended(thread: int) -> bool:
    try:
        return parse_stat(read_file(thread, "stat").decode("utf-8", errors="replace")).has_exited
    except (ProcessLookupError, FileNotFoundError):
        return True


def _no_running_thread(pid: int) -> Unauthenticated:
    return Unauthenticated(
        Reason.PEER_NOT_PINNED,
        f"The first thread of the process (host pid {pid}) has ended, and among its first"
        f" {MAX_THREADS_TRIED} the agent found none that runs.",
        read=f"/proc/{pid}/task",
        advice="Ask from a process whose first thread runs.",
    )


def read_file(directory: int, name: str) -> bytes:
    """Return a file below a directory of /proc. Raises `QuotaExceeded` for a shortage, OSError."""
    descriptor = _open(directory, name)
    try:
        return _read_all(descriptor)
    except OSError as error:
        raise resource_exhausted(error, f"/proc/<pid>/{name}") or error from None
    finally:
        os.close(descriptor)


def _read_status(thread: int) -> bytes:
    """Return the status file of a thread, in one read unless it is in thousands of groups.

    The kernel makes all of it at once (`proc_single_show` in fs/proc/base.c, `seq_read`).
    """
    descriptor = _open(thread, "status")
    try:
        text = os.read(descriptor, _READ_BYTES)
        return text + _read_all(descriptor) if len(text) == _READ_BYTES else text
    except OSError as error:
        raise resource_exhausted(error, "/proc/<pid>/status") or error from None
    finally:
        os.close(descriptor)


def _open(directory: int, name: str, flags: int = 0) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=directory)
    except OSError as error:
        raise resource_exhausted(error, f"/proc/<pid>/{name}") or error from None


def _read_all(descriptor: int) -> bytes:
    first = os.read(descriptor, _READ_BYTES)
    chunks = [first]
    while chunks[-1]:
        chunks.append(os.read(descriptor, _READ_BYTES))
    return b"".join(chunks)
