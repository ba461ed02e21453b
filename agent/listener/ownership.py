"""Checks that the agent's socket is at its path, and rebinds it when it is not.

Two agents of a node may share a path, and a workload that can write to the directory must not
gain from that for long. The rule:

- A socket with this agent's inode and mode is its own.
- A socket is another agent's if its listener is a process with the agent's uid in the agent's own
  PID namespace (the host's): in a rolling update the newer agent has taken over the path. Such a
  socket is left alone as long as a process listens on it.
- Anything else is replaced: the socket of a dead agent, a file, a link, a directory, the socket of
  a pod's process.

A workload in the host's PID namespace with uid 0 passes for an agent; it controls the node anyway.

The path is checked once a second: inotify would have to watch a directory that may itself be
replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from netutil.agent.errors import QuotaExceeded, Unauthenticated
from netutil.agent.identity.pidfd import PinPeer, peer_credentials
from netutil.agent.listener.passed_descriptors import refuse_descriptors
from netutil.agent.listener.unix_socket import FileId, Listener, Replaced, file_id

_LOG = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
_CHECKS_BETWEEN_PROBES = 5
"""Only every so many checks another agent's socket is connected to; a new one at once."""
_GRACE_CHECKS = 3
"""An agent that was taken over leaves a missing socket to the agent that took over, which checks as
often."""
_MAX_FULL_BACKLOG_CHECKS = 3
"""A listener whose backlog stays full for so many checks does not accept."""
_LOG_EVERY = 60
_MOUNT_LOST_CHECKS = 3


class PathState(Enum):
    """What is at the path of a listener. The values are the words of the log."""

    OURS = "ours"
    OTHER_AGENT = "another agent's socket"
    BACKLOG_FULL = "a socket with a full backlog"
    ABSENT = "missing"
    WRONG_MODE = "changed to another mode"
    STALE = "a socket without a listener"
    FOREIGN = "the socket of a process that is not an agent"
    NOT_A_SOCKET = "not a socket"


@contextlib.contextmanager
def path_state(listener: Listener, pin: PinPeer) -> Iterator[tuple[PathState, FileId | None]]:
    """Within the block, keep the file at a listener's path open; give its state and its identity.

    Because the file is open, no other file gets its inode meanwhile. Follows no link and does not
    block. Raises OSError if the path cannot be read, `QuotaExceeded` if the agent or the node lacks
    the resources to identify the process that listens.
    """
    try:
        # O_PATH: a FIFO or device is not opened by it. O_NOFOLLOW: a link is opened itself.
        descriptor = os.open(listener.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield PathState.ABSENT, None
        return
    try:
        status = os.fstat(descriptor)
        found = FileId(status.st_dev, status.st_ino)
        if found == listener.file_id:
            same_mode = stat.S_IMODE(status.st_mode) == listener.mode
            state = PathState.OURS if same_mode else PathState.WRONG_MODE
        elif not stat.S_ISSOCK(status.st_mode):
            state = PathState.NOT_A_SOCKET
        else:
            # Through the descriptor: the file that was checked is the one that is connected to.
            state = _probe(f"/proc/self/fd/{descriptor}", pin)
        yield state, found
    finally:
        os.close(descriptor)


def _probe(path: str, pin: PinPeer) -> PathState:
    """Connect to a socket and return whose it is. Raises OSError, `QuotaExceeded`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        refuse_descriptors(probe)
        try:
            probe.connect(path)
        except BlockingIOError:
            return PathState.BACKLOG_FULL
        except ConnectionRefusedError:
            return PathState.STALE
        # On a socket that called connect(2), SO_PEERCRED names the process that called listen(2):
        # unix(7).
        try:
            credentials = peer_credentials(probe)
            process = pin(probe, credentials.pid)
        except Unauthenticated:
            return PathState.FOREIGN
        try:
            pid_namespace_levels = len(process.status().namespace_pids)
            process.ensure_alive()
        except Unauthenticated:
            return PathState.STALE
        finally:
            process.close()
    on_host = pid_namespace_levels == 1 and credentials.uid == os.geteuid()
    return PathState.OTHER_AGENT if on_host else PathState.FOREIGN


@dataclass(slots=True)
class SocketHealth:
    """Counters of all socket watches of an agent, and what a restart of its container would fix."""

    rebinds: int = 0
    directories: int = 0
    """Directories that were at the path of a socket and were moved aside."""
    lost: dict[str, str] = field(default_factory=dict)
    """A message for each path that this process can never bind again."""

    def problem(self) -> str:
        """Return "", or a message about the paths that this process can never bind again."""
        return " ".join(self.lost.values())


class ListenerHolder(Protocol):
    """Accepts on a listener that can be exchanged, as `Acceptor` does."""

    @property
    def listener(self) -> Listener:
        """Return the listener in use."""
        ...

    def rebind(self, listener: Listener) -> None:
        """Accept from another listener from now on; close the one in use."""
        ...


class SocketWatch:
    """Watches the path of one listener. `run` returns only when it is cancelled."""

    def __init__(self, holder: ListenerHolder, pin: PinPeer, health: SocketHealth) -> None:
        self._holder = holder
        self._pin = pin
        self._health = health
        self._other_agent: FileId | None = None
        self._checks_until_probe = 0
        self._grace_checks = 0
        self._full_backlog_checks = 0
        self._failures = 0
        self._enoent_failures = 0
        self._count(holder.listener.replaced)

    async def run(self) -> None:
        """Check the path once a second."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                self.check()
            except OSError as error:
                self._on_failure("unreadable", error)
            except QuotaExceeded as error:
                _LOG.warning("listener: cannot stat %s: %s", self._holder.listener.path, error)

    def check(self) -> None:
        """Check once; rebind if neither this nor another agent's socket is at the path.

        Raises OSError if the path cannot be read, `QuotaExceeded` as `path_state`.
        """
        listener = self._holder.listener
        if self._checks_until_probe > 0 and self._is_other_agent(listener.path):
            self._checks_until_probe -= 1
            return
        with path_state(listener, self._pin) as (state, found):
            match state:
                case PathState.OURS:
                    self._reset()
                case PathState.OTHER_AGENT:
                    self._yield_path(listener.path, found)
                case PathState.BACKLOG_FULL if self._full_backlog_checks < _MAX_FULL_BACKLOG_CHECKS:
                    self._full_backlog_checks += 1
                case PathState.ABSENT if (
                    self._other_agent is not None and self._grace_checks < _GRACE_CHECKS
                ):
                    self._grace_checks += 1
                case _:
                    self._rebind(state, found)

    def _is_other_agent(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            return file_id(path) == self._other_agent
        return False

    def _yield_path(self, path: str, found: FileId | None) -> None:
        if self._other_agent is None:
            _LOG.info("listener: another agent took over %s", path)
        self._other_agent = found
        self._checks_until_probe = _CHECKS_BETWEEN_PROBES
        self._grace_checks = self._full_backlog_checks = 0

    def _rebind(self, state: PathState, found: FileId | None) -> None:
        path = self._holder.listener.path
        try:
            listener = self._holder.listener.rebind(replacing=found)
            self._holder.rebind(listener)
        except FileExistsError:
            return  # another process was faster: the next check shows whether it is an agent
        except OSError as error:
            self._on_failure(state.value, error)
            return
        self._health.rebinds += 1
        self._count(listener.replaced)
        _LOG.warning("listener: %s was %s; rebound", path, state.value)
        self._reset()

    def _count(self, replaced: Replaced) -> None:
        self._health.directories += replaced.directory

    def _on_failure(self, state: str, error: OSError) -> None:
        path = self._holder.listener.path
        if self._failures % _LOG_EVERY == 0:
            text = "listener: %s is %s and cannot be rebound: %s; open connections are kept"
            _LOG.error(text, path, state, error.strerror)
        self._failures += 1
        # The directory exists and no file can be created in it: it was deleted on the host, and
        # this process sees it through a mount. No other errno that persists means that.
        directory_deleted = error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(path))
        self._enoent_failures = self._enoent_failures + 1 if directory_deleted else 0
        if self._enoent_failures >= _MOUNT_LOST_CHECKS:
            self._health.lost[path] = (
                f"The directory of {path} was deleted on the host: the agent's container must be"
                " restarted."
            )

    def _reset(self) -> None:
        self._other_agent = None
        self._checks_until_probe = self._grace_checks = self._full_backlog_checks = 0
        self._failures = self._enoent_failures = 0
        self._health.lost.pop(self._holder.listener.path, None)
