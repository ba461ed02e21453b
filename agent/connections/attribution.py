"""Which pod the work for a connection was done for whose peer was never identified."""

from __future__ import annotations

import socket

from cachetools import LRUCache
from netutil.agent.identity.cgroup_id import peer_cgroup_id, process_cgroup_id
from netutil.agent.identity.peer import NO_POD, Peer
from netutil.agent.identity.process import PinnedProcess

_MAX_CGROUPS = 4096


class CgroupKeys:
    """The quota keys of pods by the IDs of their cgroups, learned of identified peers.

    Used on one event loop. A cgroup of two pods belongs to neither.
    """

    def __init__(self) -> None:
        self._keys: LRUCache[int, str | None] = LRUCache(_MAX_CGROUPS)

    def learn(self, process: PinnedProcess, key: str) -> None:
        """Note the quota key of an identified peer."""
        cgroup_id = process_cgroup_id(process)
        if cgroup_id is not None and self._keys.setdefault(cgroup_id, key) != key:
            self._keys[cgroup_id] = None

    def find(self, connection: socket.socket) -> str | None:
        """Return the quota key of a peer, which may have exited; None if it is not known."""
        cgroup_id = peer_cgroup_id(connection)
        return None if cgroup_id is None else self._keys.get(cgroup_id)


def is_in_cgroup_v2(peer: Peer) -> bool:
    """Return whether a peer's cgroup v2 cgroup is one of its pod.

    Of pods in cgroup v1 alone it is that of all processes of the node.
    """
    in_v2 = (placement.line.hierarchy == 0 for placement in peer.cgroups.placements)
    return peer.pod_key != NO_POD and any(in_v2)
