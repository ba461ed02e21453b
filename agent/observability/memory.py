"""Memory usage of the agent's own cgroup, and the error beyond its high watermark.

The kernel kills the agent at the limit, and every pod of the node loses its connection. So beyond
the high watermark the agent rejects new connections and streams, and answers open connections.
Memory that the kernel would reclaim first (inactive page cache) does not count, as with the
kubelet's "working set". Sources: cgroup-v1/memory.rst (usage_in_bytes; memory.stat:
hierarchical_memory_limit, total_inactive_file), cgroup-v2.rst (memory.current, memory.max,
memory.high; memory.stat: inactive_file).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netutil.agent.errors import QuotaExceeded, Reason
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED
from netutil.agent.parsers.cgroup import parse_cgroup_file

_LOG = logging.getLogger(__name__)

_NO_LIMIT_BYTES = 2**62
"""cgroup v1 writes "none" as the largest number of pages that a long holds."""
_READ_AGAIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of a cgroup in bytes; `limit_bytes` is None where there is no limit."""

    used_bytes: int = 0
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A cgroup's directory; those above it are the hierarchy's up to and with `top`."""

    version: int
    directory: str
    top: str

    def read(self) -> MemoryUse:
        """Return its use. Raises OSError, ValueError for a file that is not as documented."""
        return self._read_v1() if self.version == 1 else self._read_v2()

    def _read_v1(self) -> MemoryUse:
        stat = _stat(self.directory)
        used = _number(self.directory, "memory.usage_in_bytes")
        limit = stat["hierarchical_memory_limit"]
        return MemoryUse(
            max(0, used - stat["total_inactive_file"]), limit if limit < _NO_LIMIT_BYTES else None
        )

    def _read_v2(self) -> MemoryUse:
        used = _number(self.directory, "memory.current")
        limits: list[int] = []
        directory = self.directory
        while True:
            for name in ("memory.max", "memory.high"):
                try:
                    text = Path(directory, name).read_text(encoding="ascii").strip()
                except FileNotFoundError:  # the root has none
                    continue
                if text != "max":
                    limits.append(int(text))
            if directory == self.top:
                break
            directory = os.path.dirname(directory)
        return MemoryUse(
            max(0, used - _stat(self.directory)["inactive_file"]), min(limits, default=None)
        )


def own_memory_cgroup(tree: CgroupTree) -> MemoryCgroup | None:
    """Return the cgroup of this process, None where no memory controller is seen."""
    text = Path("/proc/self/cgroup").read_bytes().decode("utf-8", errors="surrogateescape")
    return memory_cgroup(tree, text)


def memory_cgroup(tree: CgroupTree, text: str) -> MemoryCgroup | None:
    """Return the memory cgroup that the text of /proc/<pid>/cgroup names, None if none is seen.

    The text is as the agent's own cgroup namespace shows it.
    """
    own = parse_cgroup_file(text)
    for controller in ("memory", UNIFIED):
        hierarchy = tree.hierarchies.get(controller)
        line = next((one for one in own if controller in (one.controllers or (UNIFIED,))), None)
        path = hierarchy.absolute(line.path) if hierarchy and line else None
        directory = hierarchy.resolve(path) if hierarchy and path is not None else None
        if hierarchy is None or directory is None:
            continue
        found = MemoryCgroup(hierarchy.version, directory, hierarchy.directory)
        try:
            found.read()
        except (OSError, ValueError, KeyError):  # no memory controller here
            continue
        return found
    return None


class MemoryLimit:
    """Rejects new connections beyond the high watermark. Reads at most four times a second."""

    def __init__(
        self,
        cgroup: MemoryCgroup | None,
        percent: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`percent` is the high watermark, as a share of the limit."""
        self._cgroup = cgroup
        self.percent = percent
        self._clock = clock
        self._read_at = -float("inf")
        self._use = MemoryUse()
        self._failed = self._rejecting = False

    @property
    def use(self) -> MemoryUse:
        """Return the last reading, at most a quarter of a second old; zeroes without a cgroup."""
        now = self._clock()
        if self._cgroup is not None and now - self._read_at >= _READ_AGAIN_SECONDS:
            self._read_at = now
            try:
                self._use = self._cgroup.read()
                self._failed = False
            except (OSError, ValueError, KeyError) as error:
                if not self._failed:
                    _LOG.warning("agent: the use of memory cannot be read: %s", error)
                self._use, self._failed = MemoryUse(), True
        return self._use

    def check_capacity(self) -> QuotaExceeded | None:
        """Return the error of new connections beyond the high watermark, else None."""
        use = self.use
        full = use.limit_bytes is not None and use.used_bytes * 100 > use.limit_bytes * self.percent
        if full is not self._rejecting:
            self._rejecting = full
            _LOG.warning(
                "agent: uses %d of %s bytes of memory; new connections are %s",
                use.used_bytes,
                use.limit_bytes,
                "rejected" if full else "accepted again",
            )
        if not full:
            return None
        return QuotaExceeded(
            Reason.AGENT_MEMORY_LOW,
            f"The agent uses more than {self.percent} % of the memory that it may have; it"
            " answers open connections and accepts no new ones.",
            read="the agent's own cgroup",
            advice="Try again later; raise the memory limit of the agent's container.",
        )

    def ensure_capacity(self) -> None:
        """Raise the error of `check_capacity`, if there is one."""
        error = self.check_capacity()
        if error is not None:
            raise error


def _number(directory: str, name: str) -> int:
    return int(Path(directory, name).read_text(encoding="ascii"))


def _stat(directory: str) -> dict[str, int]:
    text = Path(directory, "memory.stat").read_text(encoding="ascii")
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}
