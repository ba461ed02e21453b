"""Identifies an accepted connection: the `Peer`, and its quota key."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from netutil.agent.errors import PermissionDenied
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.host_root import HOST_ROOT, is_host_root
from netutil.agent.identity.pidfd import PinPeer, peer_credentials
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.parsers.cgroup import CgroupIdentity, choose_container

NO_POD = ""
"""The quota key of all callers that are not known to be of a pod."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller of one connection: the process that called connect(2), and its container.

    The container stays that of connect(2), whichever process uses the connection
    later: a forked child of the process is in the same container. `pod_key` is what its
    pod is counted under: its UID, or its container if root made the place of that one.
    """

    credentials: Credentials
    process: PinnedProcess
    cgroups: CgroupIdentity
    pod_key: str


@dataclass(frozen=True, slots=True)
class Requester:
    """The requester of a call, for the log. Unknown fields are None; the pod is a proven one."""

    credentials: Credentials | None = None
    pod_uid: str | None = None
    container_id: str | None = None


def requester_of(peer: Peer) -> Requester:
    """Return the requester of a peer, without holding its process."""
    return Requester(peer.credentials, peer.cgroups.pod_uid, peer.cgroups.container_id)


def identify_process(process: PinnedProcess, tree: CgroupTree) -> CgroupIdentity:
    """Return what the cgroups of a pinned process say, checked against the owners of the cgroups.

    Raises `PermissionDenied` for a process outside of pods, `FailedPrecondition` if its
    hierarchies disagree, `Unauthenticated` if it has exited.
    """
    identity = tree.identify_made_by_root(process.cgroup_text())
    process.ensure_alive()
    return identity


def identify_peer(connection: socket.socket, pin: PinPeer, tree: CgroupTree) -> Peer:
    """Return the peer of a connection. The caller closes `peer.process`.

    Raises as `identify_process`, and `Unauthenticated` if the peer cannot be seen or held. A
    `PermissionDenied` for a process of the host's root has its quota key.
    """
    credentials = peer_credentials(connection)
    process = pin(connection, credentials.pid)
    try:
        cgroups = _identify_peer_process(credentials, process, tree)
        return Peer(credentials, process, cgroups, pod_key_of(cgroups, tree))
    except BaseException:
        process.close()
        raise


def _identify_peer_process(
    credentials: Credentials, process: PinnedProcess, tree: CgroupTree
) -> CgroupIdentity:
    try:
        return identify_process(process, tree)
    except PermissionDenied as error:
        if is_host_root(credentials, process, tree):
            error.quota_key = HOST_ROOT
        raise


def pod_key_of(cgroups: CgroupIdentity, tree: CgroupTree) -> str:
    """Return what is counted for a caller: nothing that it could choose again for each connection.

    A user of the host makes as many directories with a container's name as they like, below a
    cgroup that was delegated to them.
    """
    if cgroups.pod_uid:
        return cgroups.pod_uid
    innermost, _ = cgroups.placements[0].containers[-1]
    try:
        tree.ensure_made_by_root(choose_container(cgroups, [innermost]))
    except PermissionDenied:
        return NO_POD
    return innermost
