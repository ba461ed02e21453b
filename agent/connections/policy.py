"""Call and connection policy of the gRPC server: the limits of each pod.

A call is admitted on its headers, before its message: a call that never sends any is in flight
like another. Health, reflection and methods that do not exist are admitted like all others. What a
pod costs beside its calls has a budget; past it nothing is read of the pod for a time, over old
connections and new ones, and its responses of more than 64 KiB do not go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netutil.agent.connections.registry import Connection, ConnectionRegistry, connection_of
from netutil.agent.errors import AgentError
from netutil.agent.grpcserver import Call, Status
from netutil.agent.grpcserver import Connection as ServedConnection
from netutil.agent.identity.peer import Requester
from netutil.agent.limits.in_flight import InFlight
from netutil.agent.limits.limits import (
    RateLimits,
    headers_too_large,
    message_too_large,
    too_many_calls,
    too_much_overhead,
)
from netutil.agent.limits.scheduler import Account, FairScheduler, Work
from netutil.agent.limits.token_bucket import TokenBuckets

CONNECTION_COST = 24
"""What a connection costs that brought no call, in units of one frame."""
_REJECTION_COST = 20
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.05, 10.0
_CONNECT_SECONDS = 0.0001
"""Loop time that it takes to make a connection and to end it, beside what is read of it. Charged
once its first request has been answered: the first charge of all would make that one wait."""
NO_METHOD = "unknown"

RecordRejection = Callable[[str, Requester, str, str, AgentError], None]
"""Notes a rejection: its stage, the requester, the quota key, the method, and the error."""
RejectCall = Callable[[Connection, str, Call, AgentError], Status]
"""Notes a refused call and returns how it ends: connection, method, call, error."""


@dataclass(frozen=True, slots=True)
class ServerSizes:
    """The limits of the gRPC server, in bytes: of a call's metadata, and of a request."""

    header_bytes: int
    request_bytes: int


class PodPolicy:
    """The `CallPolicy` of one socket. Used on one event loop.

    Without `rates`, calls and overhead are not limited by rate.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        scheduler: FairScheduler,
        in_flight: InFlight,
        reject_call: RejectCall,
        record_rejection: RecordRejection,
        sizes: ServerSizes,
        rates: RateLimits | None = None,
    ) -> None:
        self.registry = registry
        self.scheduler = scheduler
        self.pauses = 0
        """How often nothing was read of a pod for a time, for its overhead."""
        self.record_rejection = record_rejection
        self._in_flight = in_flight
        self._reject_call = reject_call
        self.sizes = sizes
        self._accounts: dict[Connection, Account] = {}
        self._calls = self._overhead = None
        if rates is not None:
            self._calls = TokenBuckets(rates.calls_per_second, rates.call_burst)
            self._overhead = TokenBuckets(
                rates.cost_per_second, rates.cost_per_second, max_debt_seconds=_MAX_PAUSE_SECONDS
            )

    @property
    def tokens(self) -> Mapping[str, TokenBuckets]:
        """Return the tokens of the pods, by what they are for; none without `rates`."""
        both = {"call": self._calls, "overhead": self._overhead}
        return {name: tokens for name, tokens in both.items() if tokens is not None}

    # Connections

    def opened(self, connection: Connection) -> None:
        """Enter an admitted connection."""
        self.registry.add(connection)
        self._accounts[connection] = self.scheduler.account(connection.key)

    def run(
        self, connection: Connection, serve: Callable[[], None], due: Account | None
    ) -> Work | None:
        """Serve a new connection, now or in the order of its pod; return the work that waits.

        `due` is the account whose work runs now.
        """
        account = self._accounts[connection]

        def begin() -> None:
            serve()
            self.scheduler.charge(account, _CONNECT_SECONDS)

        if account is due or self.scheduler.may_run(account):
            begin()
            return None
        self.scheduler.wait(account, begin)
        return begin

    def forget_new(self, connection: Connection, work: Work) -> None:
        """Serve a new connection no more that waits."""
        self.scheduler.forget(self._accounts[connection], work)

    def closed(self, peer: Connection, calls: int) -> None:
        """Remove a connection, and close the handles of its process."""
        self.registry.remove(peer)
        del self._accounts[peer]
        if peer.peer is not None:
            peer.peer.process.close()
        if not calls:
            self._charge(peer.key, peer.requester, CONNECTION_COST)

    def spent(self, key: str, seconds: float) -> None:
        """Note loop time that was spent on a pod."""
        self.scheduler.charge(self.scheduler.account(key), seconds)

    def charge(self, key: str, cost: float) -> None:
        """Note overhead of a pod that has no connection for it."""
        self._charge(key, Requester(), cost)

    # Calls, of `CallPolicy`

    def admit(self, call: Call) -> Status | None:
        """Count a call as its pod's and return None, or return why it is refused."""
        connection: Connection = call.connection.peer
        key = connection.key
        try:
            if self._calls is not None:
                wait_seconds = self._calls.take(key)
                if wait_seconds:
                    raise too_many_calls(wait_seconds)
            self._in_flight.begin(key, stream=call.head.is_stream)
        except AgentError as error:
            self._charge(key, connection.requester, _REJECTION_COST)
            return self._reject_call(connection, self._name(call), call, error)
        return None

    def rejected(self, call: Call, status: Status) -> Status:
        """Note a call past a limit of the server, and return the status that says which."""
        connection = connection_of(call)
        self._charge(connection.key, connection.requester, _REJECTION_COST)
        if not status.limit:
            return status
        error = (
            headers_too_large(self.sizes.header_bytes)
            if status.limit == "metadata"
            else message_too_large(self.sizes.request_bytes)
        )
        return self._reject_call(connection, self._name(call), call, error)

    def finished(self, call: Call) -> None:
        """Count a call as in flight no more."""
        connection: Connection = call.connection.peer
        self._in_flight.end(connection.key, stream=call.head.is_stream)

    # The order of work, of `CallPolicy`

    def may_process(self, connection: ServedConnection) -> bool:
        """Return whether a connection goes on now."""
        account = self._accounts.get(connection.peer)
        return self.scheduler.may_run(account or self._account(connection))

    def may_resume(self, connection: ServedConnection) -> bool:
        """Return whether a handler goes on now that has waited."""
        account = self._accounts.get(connection.peer)
        return self.scheduler.may_resume(account or self._account(connection))

    def wait(self, connection: ServedConnection, work: Work) -> None:
        """Do work of a connection in the order of its pod."""
        self.scheduler.wait(self._account(connection), work)

    def forget(self, connection: ServedConnection, work: Work) -> None:
        """Do work no more that waits."""
        self.scheduler.forget(self._account(connection), work)

    def resumed(self, connection: ServedConnection, seconds: float) -> None:
        """Charge a pod for loop time of a handler that has waited."""
        self.scheduler.charge_resumed(self._account(connection), seconds)

    def processed(self, connection: ServedConnection, seconds: float, overhead: int) -> None:
        """Charge a pod for loop time and for frames that brought nothing."""
        peer: Connection = connection.peer
        account = self._accounts.get(peer)
        self.scheduler.charge(account or self._account(connection), seconds)
        if overhead > 0:
            self._charge(peer.key, peer.requester, overhead)
        elif overhead and self._overhead is not None:
            self._overhead.give_back(peer.key, -overhead)

    def _account(self, connection: ServedConnection) -> Account:
        peer: Connection = connection.peer
        account = self._accounts.get(peer)  # none after the end, which handlers outlive a little
        return self.scheduler.account(peer.key) if account is None else account

    def _charge(self, key: str, requester: Requester, cost: float) -> None:
        if self._overhead is None:
            return
        debt_seconds = self._overhead.charge(key, cost)
        if not debt_seconds:
            return
        account, pause = self.scheduler.account(key), max(_MIN_PAUSE_SECONDS, debt_seconds)
        if not self.scheduler.is_blocked(account):
            self.pauses += 1
            self.record_rejection("connection", requester, key, "", too_much_overhead(pause))
        self.scheduler.block(account, pause)

    def _name(self, call: Call) -> str:
        """Return what logs and metrics call a method: `GetEnv`, but `Health.Check`."""
        method = call.head.method
        if method is None:
            return NO_METHOD
        service, _, name = method.name.rpartition("/")
        service = service.rpartition(".")[2]
        return name if service in ("NetUtil", "Node") else f"{service}.{name}"
