"""A process of the node as the caller that it would be, by the functions that identify callers."""

from __future__ import annotations

from netutil.agent.connections.registry import Connection
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import Peer, asker_of, identify_process, pod_key_of
from netutil.agent.identity.process import Credentials, PinnedProcess


def connection_of(process: PinnedProcess, tree: CgroupTree) -> Connection:
    """Return the connection that a pinned process would have. Raises as `identify_process`.

    It is in no registry; the caller closes the process.
    """
    status = process.status()
    credentials = Credentials(process.pid, status.uids[1], status.gids[1])
    cgroups = identify_process(process, tree)
    peer = Peer(credentials, process, cgroups, pod_key_of(cgroups, tree))
    return Connection(peer.pod_key, peer, None, asker_of(peer))
