"""Fair scheduling of one event loop among pods that compete.

Each pod has an account of the loop time that it has used, in which older time counts less. Work of
a pod runs at once while the pod has used little of the current round of the loop and no pod that
has used less is waiting. Everything else waits in the queue of its pod. In each round of the loop
the queues are served for a bounded time, the pod that has used the least first. So:

- the loop is never idle while work waits, and a pod that is alone waits at most for the next round;
- a pod below a fair share goes before every pod above one, whatever the others send;
- work that no pod can be charged for shares one account, which is served after all others;
- between two pieces of work that waited, the sockets are looked at: a pod below a fair share waits
  for one piece, and not for a round.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Sequence
from time import perf_counter

SLICE_SECONDS = 0.0002
"""Loop time after which a pod waits for the next round, and for which waiting work is served in
one: about four calls. A call of another pod waits for no more than that and the one piece of work
that is under way."""
_MEMORY_SECONDS = 0.5
"""Loop time that was used so long ago counts by 1/e."""
_STEP_SECONDS = 0.005
"""How often that is worked out."""
_MAX_ROUND_SECONDS = 0.001
"""The longest time for which waiting work is served in one round."""
_MAX_CHARGE_SECONDS = 0.002
"""Work that seems to take longer was interrupted: the kernel ran something else, or the agent's
cgroup reached its CPU limit. The thread's CPU time would show it, but takes eight times as long to
read."""
_MAX_ACCOUNTS = 4096

Work = Callable[[], None]


class Account:
    """The loop time that one pod has used, and its work that waits. For `FairScheduler`."""

    __slots__ = ("_at", "_used", "blocked_until", "is_last", "queue", "round", "round_seconds")

    def __init__(self, *, is_last: bool) -> None:
        self.is_last = is_last
        """This account is served after those for which this is false."""
        self.queue: deque[Work] = deque()
        self.round = -1
        self.round_seconds = 0.0
        """Loop time used in the round `round`."""
        self._used = 0.0
        self._at = 0.0
        self.blocked_until = 0.0
        """The time before which no work is served."""

    def used(self, now: float) -> float:
        """Return the loop time in seconds that was used lately, as of a moment ago."""
        passed = now - self._at
        if passed > _STEP_SECONDS:
            self._used *= math.exp(-passed / _MEMORY_SECONDS)
            self._at = now
        return self._used

    def add(self, seconds: float, now: float) -> None:
        """Add loop time."""
        if now - self._at > _STEP_SECONDS:
            self.used(now)
        self._used += seconds

    def block(self, until: float) -> None:
        """Serve no work before a time; a block that lasts longer already stays."""
        self.blocked_until = max(self.blocked_until, until)


class FairScheduler:
    """Orders the work of accounts. Used on one event loop. Times are of `perf_counter`."""

    def __init__(self, shared_key: str | None = None) -> None:
        """`shared_key` names the account of all work that no pod can be charged for."""
        self.waits = 0
        """How much work had to wait, since the start."""
        self._loop = asyncio.get_running_loop()
        self._shared = Account(is_last=True)
        self._shared_key = shared_key
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._waiting: dict[Account, None] = {}
        self._round = 0
        self._resumed_seconds = 0.0
        """Loop time that handlers which have waited have used in this round."""
        self._round_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._looks: tuple[Work, ...] = ()
        self._until = self._last_until = 0.0
        """When this round ends, and the latest time to which looks may move that."""

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, key: str) -> Account:
        """Return the account of a pod."""
        if key == self._shared_key:
            return self._shared
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(is_last=False)
            if len(self._accounts) > _MAX_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return account

    def look_between(self, looks: Sequence[Work]) -> None:
        """Call these before each piece of work that has waited.

        The functions run what has come meanwhile and may run: a pod that has used less waits for
        the piece that is under way, and not for the whole round.
        """
        self._looks = tuple(looks)

    def retain(self, pod_keys: Container[str]) -> None:
        """Forget the accounts of other pods than these, but for those with work or a block."""
        now = perf_counter()
        for key, account in tuple(self._accounts.items()):
            if key not in pod_keys and not account.queue and account.blocked_until <= now:
                del self._accounts[key]

    def may_run(self, account: Account) -> bool:
        """Return whether work of an account may run now, and not through `wait`."""
        if account.queue:
            return False
        now = perf_counter()
        if account.blocked_until > now:
            return False
        if account.round == self._round and account.round_seconds >= SLICE_SECONDS:
            return False
        if not self._waiting:
            return True
        own = (account.is_last, account.used(now))
        return all(
            own < (other.is_last, other.used(now)) or other.blocked_until > now
            for other in self._waiting
        )

    def may_resume(self, account: Account) -> bool:
        """Return whether a handler of an account may go on now that has waited.

        As `may_run`, while such handlers have used less than a slice of this round, of all
        accounts: one event may wake many of them in one iteration of the loop, and what comes in
        it after them waits for all.
        """
        return self._resumed_seconds < SLICE_SECONDS and self.may_run(account)

    def wait(self, account: Account, work: Work) -> None:
        """Run work of an account in its order, after what waits of that account already."""
        self.waits += 1
        account.queue.append(work)
        self._waiting[account] = None
        self._have_round()

    def forget(self, account: Account, work: Work) -> None:
        """Run work that waits no more. Nothing happens if it has run."""
        if work in account.queue:  # `remove` has the work's repr, of any size, in its error
            account.queue.remove(work)
        if not account.queue:
            self._waiting.pop(account, None)

    def charge(self, account: Account, seconds: float) -> None:
        """Add loop time that was spent on an account, or will be by what was let run."""
        seconds = min(seconds, _MAX_CHARGE_SECONDS)
        account.add(seconds, perf_counter())
        if account.round != self._round:
            account.round, account.round_seconds = self._round, 0.0
        account.round_seconds += seconds
        # A round is an iteration of the loop more, and so not had for each call.
        if account.round_seconds >= SLICE_SECONDS:
            self._have_round()

    def charge_resumed(self, account: Account, seconds: float) -> None:
        """Add loop time of a handler that has waited."""
        self.charge(account, seconds)
        self._resumed_seconds += seconds
        if self._resumed_seconds >= SLICE_SECONDS:
            self._have_round()

    def block(self, account: Account, seconds: float) -> None:
        """Serve no work of an account for that time."""
        account.block(perf_counter() + seconds)

    def is_blocked(self, account: Account) -> bool:
        """Return whether no work of an account is served now."""
        return account.blocked_until > perf_counter()

    async def acquire(self, account: Account, seconds: float) -> None:
        """Return when work of an account may begin that will take about `seconds` of loop time."""
        if self.may_run(account):
            self.charge(account, seconds)
            return
        begins = self._loop.create_future()

        def begin() -> None:
            if not begins.done():  # the waiting task was cancelled
                self.charge(account, seconds)
                begins.set_result(None)

        self.wait(account, begin)
        await begins

    def _have_round(self) -> None:
        if not self._round_is_due:
            self._round_is_due = True
            self._loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        """Begin a round of the loop: serve what waits, for a bounded time."""
        self._round_is_due = False
        self._round += 1
        self._resumed_seconds = 0.0
        if not self._waiting:
            return
        began = perf_counter()
        order = sorted(
            (account for account in self._waiting if account.blocked_until <= began),
            key=lambda account: (account.is_last, account.used(began)),
        )
        # As long as it took to find the order, which grows with the pods that wait: so at least
        # half of the time is work, and at least one piece of it in each round.
        ordered = perf_counter()
        self._last_until = ordered + _MAX_ROUND_SECONDS
        self._until = min(ordered + max(SLICE_SECONDS, ordered - began), self._last_until)
        while order:
            order = self._serve(order)
            if perf_counter() >= self._until:
                break
        if any(account.blocked_until <= began for account in self._waiting):
            self._have_round()
        elif self._waiting:
            self._wake_blocked()

    def _serve(self, order: list[Account]) -> list[Account]:
        """Run work of each account while there is time; return the accounts that still wait."""
        for account in order:
            if self._looks:
                self._look()
            if not account.queue:  # another account's work had this one's forgotten
                continue
            work = account.queue.popleft()
            if not account.queue:
                self._waiting.pop(account, None)
            self._run(work)
            if perf_counter() >= self._until:
                break
        return [account for account in order if account.queue]

    def _look(self) -> None:
        """Look for what has come. What that takes is not taken from the work that waits."""
        began = perf_counter()
        for look in self._looks:
            self._run(look)
        self._until = min(self._until + perf_counter() - began, self._last_until)

    def _run(self, work: Work) -> None:
        """Run a piece of work. What it raises is reported: the other pods' work goes on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a bug, whose traceback the loop's handler logs
            self._loop.call_exception_handler(
                {"message": "scheduler: a piece of work failed", "exception": error}
            )

    def _wake_blocked(self) -> None:
        """Have a round when the first of the blocked accounts may be served again."""
        first = min(account.blocked_until for account in self._waiting)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, first - perf_counter()), self._have_round)
