"""Admits accepted connections: identifies the peer, or keeps the error.

The cheapest question comes first: a flood is rejected at the rate at which it is accepted, and
every new connection waits behind it in the kernel's one queue.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.connections.policy import CONNECTION_COST, PodPolicy
from netutil.agent.connections.registry import Connection, ConnectionRegistry
from netutil.agent.errors import AgentError, Unauthenticated, resource_exhausted
from netutil.agent.grpcserver import Server, peer_closed
from netutil.agent.identity.host_root import HOST_ROOT
from netutil.agent.identity.peer import NO_POD, Peer, Requester, requester_of
from netutil.agent.identity.pidfd import peer_credentials, peer_pid
from netutil.agent.identity.process import Credentials
from netutil.agent.limits.limits import (
    MAX_CLOSING_CONNECTIONS,
    MAX_DEFERRED_CONNECTIONS,
    MAX_HOST_ROOT_CONNECTIONS,
    ConnectionLimits,
)
from netutil.agent.limits.scheduler import Account, Work
from netutil.agent.listener.acceptor import AcceptCounts

_LOG = logging.getLogger(__name__)
_OVER_LIMIT_SECONDS = 1.0
_MAX_REJECTED_SECONDS = 30.0
"""How long a connection whose calls get an error takes a place."""
_REJECTED_AGE_SHARE = 0.5
"""So that a client that calls again after exactly that time does so over a new connection."""
OVERFLOW_SLOTS = 8
"""Connections past a limit that are still served, so that their calls get the error."""
_CLOSED_COST = 0.25
"""What it costs to accept a connection and to close it at once."""

Identify = Callable[[socket.socket], Peer | None]
"""Returns the peer, None for one that needs no identity; raises the error that its calls get."""


@dataclass(slots=True)
class AdmissionCounts:
    """What happened to new connections since the start.

    `rejected` ones got an error each call. `deferred` ones were identified in the order of the pods
    and not in that in which they came.
    """

    accept: AcceptCounts = field(default_factory=AcceptCounts)
    rejected: int = 0
    deferred: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Deferred:
    """An accepted connection whose peer is identified with the work of a pod."""

    accepted: socket.socket
    pid: int
    account: Account


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Whom one socket admits: identification, limits, what is known of peers, and counts.

    `check_capacity` returns the error of new connections, None while there is none.
    """

    identify: Identify
    limits: ConnectionLimits
    counts: AdmissionCounts
    check_capacity: Callable[[], AgentError | None] = lambda: None
    known: KnownPeers = field(default_factory=KnownPeers)


class ConnectionAdmission:
    """Admits the connections of one socket. Used on one event loop."""

    def __init__(self, server: Server, policy: PodPolicy, rules: AdmissionRules) -> None:
        self._server = server
        self._policy = policy
        self._registry: ConnectionRegistry = policy.registry
        self._identify = rules.identify
        self._limits = rules.limits
        self._counts = rules.counts
        self._check_capacity = rules.check_capacity
        self._known = rules.known
        self._taken: list[_Deferred] = []
        self._deferred: dict[_Deferred, Work] = {}

    # What the acceptor calls

    def take(self, descriptor: int) -> None:
        """Identify and serve an accepted connection now, or with the work of its pod."""
        accepted = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
        if self._closed_if_aborted(accepted):
            return
        pid = peer_pid(accepted)
        if self._closed_if_over_limit(accepted, pid):
            return
        account = self._account_of(pid)
        if account is None:
            self._identify_and_serve(accepted, pid, None)
        else:
            self._taken.append(_Deferred(accepted, pid, account))

    def is_full(self) -> bool:
        """Return whether as many connections wait to be closed as may: they count for no pod."""
        return self._server.waiting_to_close >= MAX_CLOSING_CONNECTIONS

    def burst_ended(self) -> None:
        """Begin with a connection that was taken alone; leave many to the order of the pods."""
        taken, self._taken = self._taken, []
        if len(taken) == 1 and self._policy.scheduler.may_run(taken[0].account):
            self._identify_and_serve(taken[0].accepted, taken[0].pid, taken[0].account)
            return
        for each in taken:
            self._defer(each)

    def drained(self) -> None:
        """Begin with all connections at once, since the listener closes."""
        taken, self._taken = self._taken, []
        deferred, self._deferred = self._deferred, {}
        for each, work in deferred.items():
            self._policy.scheduler.forget(each.account, work)
        for each in (*deferred, *taken):
            self._begin(each)

    # The order of the pods

    def _account_of(self, pid: int) -> Account | None:
        """Return in whose order a peer is identified; None for one that is identified at once.

        Identification and a first answer take some thirty times as long as accepting, and the new
        connections of all other pods wait behind this one in the kernel's queue. So a process that
        has been identified before waits with the work of its pod.
        """
        waiting = len(self._deferred) + len(self._taken)
        left = self._limits.total - len(self._registry)  # what they take are places of these
        if waiting >= min(MAX_DEFERRED_CONNECTIONS, left):
            return None
        key = self._known.recent.get(pid)
        if key is None:
            return None
        account = self._policy.scheduler.account(key)
        # A pod whose work is paused: its connections are counted as its own while they wait.
        return None if self._policy.scheduler.is_blocked(account) else account

    def _defer(self, each: _Deferred) -> None:
        def begin() -> None:
            del self._deferred[each]
            self._begin(each)

        self._deferred[each] = begin
        self._counts.deferred += 1
        self._policy.scheduler.wait(each.account, begin)

    def _begin(self, each: _Deferred) -> None:
        if not (
            self._closed_if_aborted(each.accepted)
            or self._closed_if_over_limit(each.accepted, each.pid)
        ):
            self._identify_and_serve(each.accepted, each.pid, each.account)

    # One connection

    def _identify_and_serve(self, accepted: socket.socket, pid: int, due: Account | None) -> None:
        connection = self._admit(accepted, pid)
        if connection is None:
            self._close_at_once(accepted)
            return
        self._policy.opened(connection)
        has_waited = False

        def serve() -> None:
            if not has_waited or self._is_still_there(accepted, connection):
                self._serve(accepted, connection)

        work = self._policy.run(connection, serve, due)
        if work is not None:
            has_waited = True
            self._watch(accepted, connection, work)

    def _closed_if_aborted(self, accepted: socket.socket) -> bool:
        """Close a connection that its peer has closed, charge the pod; return whether it has."""
        if not peer_closed(accepted.fileno()):
            return False
        self._counts.accept.aborted += 1
        self._policy.charge(self._known.cgroup_keys.find(accepted) or NO_POD, CONNECTION_COST)
        self._server.close_accepted(accepted)
        return True

    def _closed_if_over_limit(self, accepted: socket.socket, pid: int) -> bool:
        """Close a connection of a pod past every limit; return whether it is one."""
        if not self._is_over_limit(pid):
            return False
        self._close_at_once(accepted)
        return True

    def _close_at_once(self, accepted: socket.socket) -> None:
        self._counts.accept.closed_at_once += 1
        self._server.close_accepted(accepted)

    def _watch(self, accepted: socket.socket, connection: Connection, work: Work) -> None:
        """Release a connection that waits as soon as its peer has closed it."""

        def drop(_events: int) -> None:
            self._server.poller.remove(accepted.fileno())
            self._policy.forget_new(connection, work)
            self._drop(accepted, connection)

        try:
            self._server.poller.add(accepted.fileno(), 0, drop)
        except OSError as error:  # the peer is examined when its work runs
            _LOG.error("connections: a peer cannot be watched for hang-up: %s", error)

    def _drop(self, accepted: socket.socket, connection: Connection) -> None:
        self._counts.accept.aborted += 1
        self._server.close_accepted(accepted)
        self._policy.closed(connection, 0)

    def _is_still_there(self, accepted: socket.socket, connection: Connection) -> bool:
        """Return whether the peer of a connection that has waited is there; release it if not."""
        self._server.poller.remove(accepted.fileno())
        if not peer_closed(accepted.fileno()):
            return True
        self._drop(accepted, connection)
        return False

    def _serve(self, accepted: socket.socket, connection: Connection) -> None:
        # A client keeps its connection, and would get the error from now on: an error that says
        # when to call again ends the connection then, and the next one is admitted if it may be.
        error = connection.error
        max_age = None if error is None else _MAX_REJECTED_SECONDS
        if error is not None and error.retry_after_seconds is not None:
            max_age = error.retry_after_seconds * _REJECTED_AGE_SHARE
        self._server.serve(accepted, connection, max_age)

    def _admit(self, accepted: socket.socket, pid: int) -> Connection | None:
        """Return the connection of a peer, None if its calls cannot even get an error."""
        if len(self._registry) >= self._limits.total + OVERFLOW_SLOTS:
            return None
        began = time.perf_counter()
        accepted.setblocking(False)
        key = NO_POD
        connection: Connection | None
        try:
            error = self._check_capacity()
            if error is not None:
                raise error
            peer = self._identify(accepted)
            key = peer.pod_key if peer is not None else NO_POD
            if peer is not None:
                self._known.learn(peer)
            connection = self._connection(peer)
        except AgentError as error:
            key = self._key_of_unidentified(accepted, error)
            connection = self._unidentified(accepted, key, error)
        except OSError as error:
            exhausted = resource_exhausted(error, "/proc/<pid> of the caller")
            if exhausted is None:
                _LOG.error("connections: a peer could not be identified: %s", error)
                return None
            key = self._key_of_unidentified(accepted, exhausted)
            connection = self._unidentified(accepted, key, exhausted)
        self._policy.spent(key, time.perf_counter() - began)
        if connection is None:
            self._note_over_limit(pid, key)
            self._policy.charge(key, CONNECTION_COST)
        return connection

    def _connection(self, peer: Peer | None) -> Connection | None:
        if peer is None:
            return Connection(NO_POD)
        key, requester = peer.pod_key, requester_of(peer)
        held = self._registry.count(key)
        error = self._limits.exceeded(held, len(self._registry))
        if error is None:
            return Connection(key, peer, None, requester)
        peer.process.close()
        self._reject(requester, key, error)
        if held >= self._limits.per_pod + OVERFLOW_SLOTS:
            return None
        return Connection(key, None, error, requester)

    def _key_of_unidentified(self, accepted: socket.socket, error: AgentError) -> str:
        """Return the quota key of a peer that is no pod's, or could not be identified.

        Processes of the host's root have one of their own. A pod whose processes connect and exit
        takes its own places, where it is known. All others share one.
        """
        return error.quota_key or self._known.cgroup_keys.find(accepted) or NO_POD

    def _unidentified(
        self, accepted: socket.socket, key: str, error: AgentError
    ) -> Connection | None:
        """Admit a peer so that its calls get the error, None past the limit of its key."""
        # The error lives as long as the connection; with its frames it would be garbage in a ring.
        error.__traceback__ = error.__context__ = None
        requester = Requester(_credentials(accepted))
        self._reject(requester, key, error)
        if self._registry.count(key) >= self._max_connections(key):
            return None
        return Connection(key, None, error, requester)

    def _max_connections(self, key: str) -> int:
        """Return how many connections of a key are served, if only with an error."""
        if key == HOST_ROOT:
            return MAX_HOST_ROOT_CONNECTIONS
        return self._limits.per_pod + (0 if key == NO_POD else OVERFLOW_SLOTS)

    def _reject(self, requester: Requester, key: str, error: AgentError) -> None:
        self._counts.rejected += 1
        self._policy.record_rejection("connection", requester, key, "", error)

    def _note_over_limit(self, pid: int, key: str) -> None:
        """Note for a second, at most, that a process is of a pod past every limit."""
        pids = self._known.over_limit
        if not pids:
            asyncio.get_running_loop().call_later(_OVER_LIMIT_SECONDS, pids.clear)
        pids[pid] = key

    def _is_over_limit(self, pid: int) -> bool:
        """Return whether a peer would surely be closed at once, without identifying the peer.

        For a moment, a process that has just been found to be of a pod past every limit is taken
        for the same process. Should its PID be another's meanwhile, that process has to connect
        again; no peer is admitted by this.
        """
        key = self._known.over_limit.get(pid)
        if key is None:
            return False
        if self._registry.count(key) < self._max_connections(key):
            return False
        self._policy.charge(key, _CLOSED_COST)
        return True


def _credentials(accepted: socket.socket) -> Credentials | None:
    try:
        return peer_credentials(accepted)
    except (Unauthenticated, OSError):  # no PID that the agent could see: the reason of its error
        return None
