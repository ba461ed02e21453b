"""Turns by pod: how much of what a pod sends goes on to the gRPC server, and when.

The agent is one event loop, and what reaches the gRPC server is worked off in the order of its
coming. So a pod that sends a thousand requests in one write would stand before everybody
else with all of them. Here each pod has a small credit that grows with time; what is over waits
in the door, where it costs nothing, and nothing more is read from that connection. Nobody is
refused.

How much the agent can do in a second the door cannot know: calls differ, and so do nodes. It sees
whether the loop is late. Each time it is, the credits of those who sent the most lately grow half
as fast as before, until it is not.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

TURN_SECONDS = 0.005
_PORTION_SECONDS = 0.001
"""What waits goes on in portions of a turn: all of it at once would be some milliseconds of the
loop's time, and of the gRPC server's, for which everybody else waits."""
STREAM_FRAMES = 8
"""A frame that opens a stream makes a call of the agent: it counts as so many frames."""
CONNECTION_FRAMES = 16
"""A connection has to be relayed from then on."""
IDENTIFIED_FRAMES = 8
"""To find out who connects takes about as long as a call."""
CLOSED_FRAMES = 0.25
"""To accept a connection and close it at once."""
_LATE_SECONDS = 0.003
_LEAST_SHARE, _SHARE_STEP = 1 / 64, 1 / 512
_MODEST_SHARE = 1 / 32
"""Who sends no more than this part of what it may keeps its share, late or not."""
_DEEPEST_DEBT_TURNS = 20
_LATELY_SECONDS = 0.5
_PODS_REMEMBERED = 1024


class Turns:
    """The credits of all pods. Used on one event loop only."""

    def __init__(self, frames_per_second: float) -> None:
        """`frames_per_second` is what one pod may send while the loop is never late."""
        self.frames_per_second = frames_per_second
        self.late = 0
        """How often the loop was late."""
        self.frames_per_turn = frames_per_second * TURN_SECONDS
        self._of_pod: LRUCache[str, PodTurns] = LRUCache(_PODS_REMEMBERED)
        self._active: dict[PodTurns, None] = {}
        self._due = 0.0

    def of_pod(self, key: str) -> PodTurns:
        """Return the turns of one pod."""
        turns: PodTurns | None = self._of_pod.get(key)
        if turns is None:
            turns = self._of_pod[key] = PodTurns(self)
        return turns

    def watch(self, pod: PodTurns) -> None:
        """Look out for a late loop, since this pod sends."""
        if not self._active:
            self._next()
        self._active[pod] = None

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + TURN_SECONDS
        loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._due > _LATE_SECONDS:
            self.late += 1
            self._cut(now)
        else:
            for pod in self._active:
                pod.share = min(1.0, pod.share + _SHARE_STEP)
        # A pod whose share is whole comes back by itself when it sends again.
        self._active = {pod: None for pod in self._active if pod.share < 1}
        if self._active:
            self._next()

    def _cut(self, now: float) -> None:
        """Halve the share of those who sent the most; of nobody who is alone."""
        sent = {pod: pod.sent_lately(now) for pod in self._of_pod.values()}
        if sum(frames >= 1 for frames in sent.values()) <= 1:
            return
        modest = self.frames_per_second * _MODEST_SHARE * _LATELY_SECONDS
        least = max(modest, max(sent.values()) / 2)
        for pod, frames in sent.items():
            if frames > least:
                pod.share = max(_LEAST_SHARE, pod.share / 2)
                self._active[pod] = None


class PodTurns:
    """The credit of one pod, in frames, and what waits for it.

    What is begun with some credit left is done in full; the credit may thereby fall below
    zero, and is made up for first.
    """

    __slots__ = (
        "_all",
        "_credit",
        "_full",
        "_loop",
        "_sent",
        "_since",
        "_timer",
        "_waiting",
        "share",
    )

    def __init__(self, turns: Turns) -> None:
        self._all = turns
        self._loop = asyncio.get_running_loop()
        self._full = turns.frames_per_turn
        self._credit = self._full
        self._sent = 0.0
        self.share = 1.0
        """What part of all that a pod may send this one gets now."""
        self._since = self._loop.time()
        self._waiting: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def credit(self) -> float:
        """Return how many frames may pass now; none while others of this pod wait."""
        self._all.watch(self)
        return 0.0 if self._waiting else self._grown()

    def take(self, frames: float) -> None:
        """Take from the credit, which there must be some of."""
        self._credit -= frames
        self._sent += frames

    def charge(self, frames: float) -> None:
        """Take what has been spent on this pod already; what it sends waits until it is made up."""
        self._all.watch(self)
        self._grown()
        self._credit = max(-_DEEPEST_DEBT_TURNS * self._full, self._credit - frames)
        self._sent += frames

    def wait(self, go: Callable[[], None]) -> None:
        """Call `go` when its turn comes, after what waits already."""
        self._waiting.append(go)
        if self._timer is None:
            self._timer = self._loop.call_later(_PORTION_SECONDS, self._portion)

    async def pass_work(self, frames: float) -> None:
        """Return when something may be done for this pod, and take what that costs."""
        if self.credit() > 0:
            self.take(frames)
            return
        turn = self._loop.create_future()

        def go() -> None:
            if not turn.done():  # else nobody waits for it any more
                self.take(frames)
                turn.set_result(None)

        self.wait(go)
        await turn

    def sent_lately(self, now: float) -> float:
        """Return how many frames were taken, the older ones counting less and less."""
        self._grow(now)
        return self._sent

    def _grown(self) -> float:
        self._grow(self._loop.time())
        return self._credit

    def _grow(self, now: float) -> None:
        passed = now - self._since
        if passed > 0:
            grown = passed * self._all.frames_per_second * self.share
            self._credit = min(self._full, self._credit + grown)
            self._sent *= math.exp(-passed / _LATELY_SECONDS)
            self._since = now

    def _portion(self) -> None:
        self._timer = None
        self._all.watch(self)
        waiting, self._waiting = self._waiting, deque()
        while waiting and self._grown() > 0:
            waiting.popleft()()
        waiting.extend(self._waiting)
        self._waiting = waiting
        if waiting and self._timer is None:
            self._timer = self._loop.call_later(_PORTION_SECONDS, self._portion)
