"""Sees to it that a door's socket stands at its path, and binds it anew when it does not.

Looks once a second: inotify would have to watch a directory that may itself be replaced.
`standing` says by which rule a path is another agent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from dataclasses import dataclass, field

from netutil.agent.door.door import Door
from netutil.agent.door.place import Inode, Replaced, inode_of
from netutil.agent.door.standing import Standing, standing
from netutil.agent.errors import OverLimit
from netutil.agent.identity.pinning import Pin

_LOG = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_LOOKS_BETWEEN_PROBES = 5
"""Another agent's socket is connected to that seldom, and at once when it is a new one."""
_GRACE_LOOKS = 3
"""Who was taken over leaves a missing socket to the one that took it, which looks as often."""
_BUSY_PROBES = 3
"""Somebody whose queue stays full for so many probes does not serve."""
_LOG_EVERY = 60
_MOUNT_LOST_LOOKS = 3


@dataclass(slots=True)
class Kept:
    """What the keepers of an agent did, and what a restart of its container would mend."""

    rebinds: int = 0
    directories: int = 0
    """Directories that stood at a socket's path and were moved aside."""
    lost: dict[str, str] = field(default_factory=dict)

    def problem(self) -> str:
        """Return "", or a sentence about a path that this process can never bind again."""
        return " ".join(self.lost.values())


class Keeper:
    """Keeps one door's path. `keep` runs until it is cancelled."""

    def __init__(self, door: Door, pin: Pin, kept: Kept) -> None:
        self._door = door
        self._pin = pin
        self._kept = kept
        self._other: Inode | None = None  # inode of another agent's socket
        self._until_probe = 0
        self._grace = 0
        self._busy = 0
        self._failures = 0
        self._without_directory = 0
        self._count(door.listener.replaced)

    async def keep(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except OSError as error:
                self._failed("not to be looked at", error)
            except OverLimit as error:
                _LOG.warning("door: %s is not to be looked at: %s", self._door.listener.path, error)

    def look(self) -> None:
        """Look once, and bind anew if nobody's socket stands at the path. Raises OSError."""
        listener = self._door.listener
        if self._other is not None and self._until_probe > 0 and self._is_other(listener.path):
            self._until_probe -= 1
            return
        with standing(listener, self._pin) as (found, inode):
            match found:
                case Standing.OURS:
                    self._well()
                case Standing.AGENT:
                    self._leave(listener.path, inode)
                case Standing.BUSY if self._busy < _BUSY_PROBES:
                    self._busy += 1
                case Standing.MISSING if self._other is not None and self._grace < _GRACE_LOOKS:
                    self._grace += 1
                case _:
                    self._rebind(found, inode)

    def _is_other(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            return inode_of(path) == self._other
        return False

    def _leave(self, path: str, inode: Inode | None) -> None:
        if self._other is None:
            _LOG.info("door: another agent has taken %s over", path)
        self._other = inode
        self._until_probe = _LOOKS_BETWEEN_PROBES
        self._grace = self._busy = 0

    def _rebind(self, found: Standing, inode: Inode | None) -> None:
        path = self._door.listener.path
        try:
            listener = self._door.listener.anew(inode)
            self._door.rebind(listener)
        except FileExistsError:
            return  # another agent was quicker, or whoever took it away: the next look tells
        except OSError as error:
            self._failed(found.value, error)
            return
        self._kept.rebinds += 1
        self._count(listener.replaced)
        _LOG.warning("door: %s was %s: bound anew", path, found.value)
        self._well()

    def _count(self, replaced: Replaced) -> None:
        self._kept.directories += replaced.directory

    def _failed(self, found: str, error: OSError) -> None:
        path = self._door.listener.path
        if self._failures % _LOG_EVERY == 0:
            text = "door: %s is %s and cannot be bound anew: %s; connections that are open go on"
            _LOG.error(text, path, found, error.strerror)
        self._failures += 1
        # The directory is there, and nothing can be made in it: it was deleted, and what this
        # process sees of it is a mount. No other errno of those that last says so.
        gone = error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(path))
        self._without_directory = self._without_directory + 1 if gone else 0
        if self._without_directory >= _MOUNT_LOST_LOOKS:
            self._kept.lost[path] = (
                f"The directory of {path} was deleted on the host: the agent's container has"
                " to be started anew."
            )

    def _well(self) -> None:
        self._other = None
        self._until_probe = self._grace = self._busy = 0
        self._failures = self._without_directory = 0
        self._kept.lost.pop(self._door.listener.path, None)
