"""Pods that have connected, and which of them have ended: the kernel removed their cgroup.

The pod list would show it late, or not at all: it is not read without callers, and has pods that
ran to their end for as long as the API server has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import NO_POD, Peer

_MAX_PODS = 4096


class SeenPods:
    """The quota keys of the pods that have connected, until they have ended.

    A pod past `_MAX_PODS` is not noted: what is kept for it lasts as long as its connections.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._directories: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._directories)

    def __iter__(self) -> Iterator[str]:
        return iter(self._directories)

    @property
    def directories(self) -> Mapping[str, str]:
        """Return a copy of the pods' cgroup directories by quota key, for `ended_of`."""
        return dict(self._directories)

    def note(self, peer: Peer) -> None:
        """Note the pod of a peer that was identified."""
        key = peer.pod_key
        if key in self._directories or key == NO_POD or len(self._directories) >= _MAX_PODS:
            return
        directory = self._tree.scope_directory(peer.cgroups)
        if directory is not None:
            self._directories[key] = directory

    def forget(self, key: str) -> None:
        """Note that a pod has ended."""
        self._directories.pop(key, None)


def ended_of(directories: Mapping[str, str]) -> frozenset[str]:
    """Return the keys of pods whose cgroup directory was removed. Blocks: not for the loop."""
    return frozenset(key for key, directory in directories.items() if _is_removed(directory))


def _is_removed(directory: str) -> bool:
    try:
        os.stat(directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a shortage, perhaps: the next sweep asks again
        return False
    return False
