"""From an accepted connection to the `Peer` that stands for its caller."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.pinning import Pin, peer_credentials
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.parsers.cgroup import CgroupIdentity, identify


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller of one connection: the process that called connect(2), and its container.

    The container stays what it was at connect(2), whoever uses the connection
    later: a forked child of the process is in the same container.
    """

    credentials: Credentials
    process: PinnedProcess
    cgroups: CgroupIdentity

    @property
    def pod_key(self) -> str:
        """Return what the caller's pod is counted under: its UID, or its outermost container."""
        if self.cgroups.pod_uid:
            return self.cgroups.pod_uid
        return self.cgroups.placements[0].containers[0][0]


def identify_process(process: PinnedProcess, tree: CgroupTree) -> CgroupIdentity:
    """Return what the cgroups of a pinned process say, checked against who made them.

    Raises `Denied` for a process outside of pods, `Inconsistent` if its
    hierarchies disagree, `Unidentified` if it is gone.
    """
    identity = identify(process.cgroup_text())
    if identity.pod_uid is not None:
        tree.ensure_made_by_root(identity)
    process.ensure_alive()
    return identity


def identify_peer(connection: socket.socket, pin: Pin, tree: CgroupTree) -> Peer:
    """Return who is at the other end. The caller closes `peer.process`.

    Raises as `identify_process`, and `Unidentified` if the peer cannot be seen or held.
    """
    credentials = peer_credentials(connection)
    process = pin(connection, credentials.pid)
    try:
        return Peer(credentials, process, identify_process(process, tree))
    except BaseException:
        process.close()
        raise
