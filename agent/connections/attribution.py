"""Attributes the work for unidentified peers to a pod."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from netutil.agent.connections.seen_pods import SeenPods
from netutil.agent.identity.cgroup_id import peer_cgroup_id, process_cgroup_id
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import NO_POD, Peer
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.recent_cache import SharedRecentCache

_MAX_CGROUPS = 4096
_MAX_CGROUPS_OF_POD = 64
"""In each of the two generations: a pod makes cgroups below its own without end."""
_MAX_PROCESSES = 4096
_MAX_PROCESSES_OF_POD = 64
"""In each of the two generations: a pod starts processes without end."""
_SWEEPS_KEPT = 27
"""After that many sweeps without a connection of a cgroup, and before twice as many, it is
released: in less than ten minutes (`service.retention`)."""


class CgroupKeys:
    """The quota keys of pods by the IDs of their cgroups, learned of identified peers.

    Used on one event loop. A cgroup of two pods belongs to neither.
    """

    def __init__(self) -> None:
        self._keys: SharedRecentCache[int, str] = SharedRecentCache(
            _MAX_CGROUPS, _MAX_CGROUPS_OF_POD, str, _SWEEPS_KEPT
        )

    def __len__(self) -> int:
        return len(self._keys)

    def age(self) -> None:
        """Release the cgroups without a recent connection."""
        self._keys.age()

    def learn(self, process: PinnedProcess, key: str) -> None:
        """Note the quota key of an identified peer."""
        cgroup_id = process_cgroup_id(process)
        if cgroup_id is not None and self._keys.setdefault(cgroup_id, key) != key:
            self._keys[cgroup_id] = NO_POD

    def find(self, connection: socket.socket) -> str | None:
        """Return the quota key of a peer, which may have exited; None if it is not known."""
        cgroup_id = peer_cgroup_id(connection)
        return None if cgroup_id is None else self._keys.get(cgroup_id) or None


def _recent_processes() -> SharedRecentCache[int, str]:
    return SharedRecentCache(_MAX_PROCESSES, _MAX_PROCESSES_OF_POD, str, _SWEEPS_KEPT)


@dataclass(frozen=True, slots=True)
class KnownPeers:
    """What is known of the peers of a socket beyond their connections.

    `recent` has the quota keys of identified peers by their PIDs. A PID may be another process's by
    now, so it decides about nothing but the order of work. `recent` stays empty unless
    `are_pinned`: the kernel pins each peer at its connect(2), so that identification may wait.
    `over_limit` has the PIDs of those that were past a limit within the last second, with their
    quota keys.
    """

    are_pinned: bool = False
    pods: SeenPods = field(default_factory=lambda: SeenPods(CgroupTree()))
    cgroup_keys: CgroupKeys = field(default_factory=CgroupKeys)
    recent: SharedRecentCache[int, str] = field(default_factory=_recent_processes)
    over_limit: dict[int, str] = field(default_factory=dict)

    def learn(self, peer: Peer) -> None:
        """Note a peer that was identified."""
        if self.are_pinned:
            self.recent[peer.credentials.pid] = peer.pod_key
        self.pods.note(peer)
        if is_in_cgroup_v2(peer):
            self.cgroup_keys.learn(peer.process, peer.pod_key)


def is_in_cgroup_v2(peer: Peer) -> bool:
    """Return whether a peer's cgroup v2 cgroup is one of its pod.

    Of pods in cgroup v1 alone it is that of all processes of the node.
    """
    in_v2 = (placement.line.hierarchy == 0 for placement in peer.cgroups.placements)
    return peer.pod_key != NO_POD and any(in_v2)
