"""When the loop accepts, and whether those who come are a flood.

A flood of connections never ends, and each that is accepted is time that those who are in wait
for. So the loop accepts in short bursts, and puts them off while it has other work: a call takes
some ten rounds of the loop, and would stand behind a burst in each of them.
"""

from __future__ import annotations

import math

BURST_SECONDS = 0.00005
"""How long the loop accepts at once."""
LONGEST_WAIT_SECONDS = 0.0005
"""How long those who are in go before those who come: a tenth of the loop's time is theirs."""
USELESS_PER_SECOND = 2000.0
"""Of connections that are closed at once, or were by their peers, so many are a flood."""
CALM_SECONDS = 10.0
"""A flood is over after so long without one: else one that pauses would always find calm."""
_WINDOW_SECONDS = 0.02
_BUSY, _FORGETTING = 2.0, 1.01


class Pace:
    """Tells whether to accept in this round of the loop. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self._more = False
        self._burst = self._round = 0.0
        self._idle_round = math.inf

    def may_accept(self, now: float) -> bool:
        """Return False while the loop has other work, and did accept a moment ago.

        That it had is told by how long the round before took. How long one without work takes
        depends on the machine, so it is learnt: the shortest, the older ones counting less.
        """
        if not self._more:
            return True
        took, self._round = now - self._round, now
        self._idle_round = min(took, self._idle_round * _FORGETTING)
        return took < _BUSY * self._idle_round or now - self._burst > LONGEST_WAIT_SECONDS

    def accepted(self, now: float, *, more: bool) -> None:
        """Take note of a burst that has ended, and whether somebody may wait behind it."""
        self._burst = self._round = now
        self._more = more


class Flood:
    """Tells whether those who come are a flood. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self._useless = 0
        self._since = self._last = -math.inf

    def goes_on(self, now: float, useless: int) -> bool:
        """Return whether there is a flood; `useless` connections came to nothing so far."""
        passed = now - self._since
        if passed >= _WINDOW_SECONDS:
            if useless - self._useless > USELESS_PER_SECOND * passed:
                self._last = now
            self._since, self._useless = now, useless
        return now - self._last < CALM_SECONDS
