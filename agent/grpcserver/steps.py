"""Steps of a handler: the first without a task, each further one in the order of the policy.

A handler that waits goes on in a task. One event may wake many handlers in the same iteration of
the loop (a read that many calls share), so each step asks first whether it may run now. A step that
may not run is work that waits, and runs as a part of that work: a future would have it run in the
next iteration, beside the steps of all others that were let go on.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_Wake = Callable[[Any], object]


class Steps(Protocol):
    """Decides when handlers go on."""

    def may_resume(self) -> bool:
        """Return whether a handler may go on now."""

    def wait(self, work: Callable[[], None]) -> None:
        """Call `work` once, in its order."""

    def forget(self, work: Callable[[], None]) -> None:
        """Call `work` no more."""

    def resumed(self, seconds: float) -> None:
        """Note how much of the loop's time a step has taken."""

    def turn_ended(self) -> None:
        """Send what a step has written that had to wait, as a part of its work."""


class FirstStep:
    """What `asyncio.current_task()` is while a handler has not waited yet.

    `asyncio.timeout` and `TaskGroup` keep it, and cancel it later: by then there is a task.
    """

    task: asyncio.Task[None] | None = None

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def cancel(self, msg: object = None) -> bool:
        """Cancel the task; return False without one."""
        return self.task is not None and self.task.cancel(msg)

    def uncancel(self) -> int:
        """Do what the task's method does; return 0 without a task."""
        return self.task.uncancel() if self.task is not None else 0

    def cancelling(self) -> int:
        """Return what the task's method does; 0 without a task."""
        return self.task.cancelling() if self.task is not None else 0

    def done(self) -> bool:
        """Return whether there is a task, and it is done."""
        return self.task is not None and self.task.done()


class Turn:
    """What a task waits for until its next step may run: a future, as far as a task knows.

    The task goes on inside `run`, and not in an iteration of the loop after it.
    """

    __slots__ = ("_asyncio_future_blocking", "_is_cancelled", "_loop", "_steps", "_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, steps: Steps) -> None:
        # A task takes this for what a coroutine yields that awaits a future.
        self._asyncio_future_blocking = True
        self._loop = loop
        self._steps = steps
        self._wake: tuple[_Wake, contextvars.Context] | None = None
        self._is_cancelled = False
        steps.wait(self.run)

    def run(self) -> None:
        """Let the task take its step; in the next iteration where this is called inside a task."""
        if asyncio.current_task(self._loop) is not None:  # which no other task can run inside of
            self._loop.call_soon(self.run)
            return
        wake, self._wake = self._wake, None
        if wake is None:
            return
        callback, context = wake
        try:
            context.run(callback, self)
        finally:
            # An error that the step keeps refers to this frame, and the callback to the task.
            del wake, callback, context
        self._steps.turn_ended()

    # asyncio.Future, as far as a task uses it

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task."""
        return self._loop

    def add_done_callback(self, callback: _Wake, *, context: contextvars.Context) -> None:
        """Call `callback` when the step may run. A task adds one."""
        self._wake = callback, context

    def cancel(self, msg: object = None) -> bool:
        """Have the task raise CancelledError in the next iteration of the loop."""
        if self._is_cancelled or self._wake is None:
            return False
        self._is_cancelled = True
        self._steps.forget(self.run)
        self._loop.call_soon(self.run)
        return True

    def result(self) -> None:
        """Raise CancelledError if the task was cancelled, and return None if not."""
        if self._is_cancelled:
            raise asyncio.CancelledError


class ResumedHandler(Coroutine[Any, Any, Any]):
    """A coroutine that was started and waits for `waiting`, for a task that goes on with it.

    For the task, a coroutine that is cancelled has ended as any other. A task keeps the error that
    cancelled it, and so the frames of the handler and what is in them: cycles that hold megabytes,
    until the garbage collector finds them.

    The class is no generator: a task that is cancelled before its first step throws into its
    coroutine, which a generator that has not begun would not pass on.
    """

    __slots__ = (
        "_coroutine",
        "_error",
        "_has_turn",
        "_is_begun",
        "_is_future",
        "_loop",
        "_waiting",
        "steps",
    )

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        waiting: Any,
        loop: asyncio.AbstractEventLoop,
        steps: Steps,
    ) -> None:
        self._coroutine = coroutine
        self._waiting = waiting
        self._is_future = getattr(waiting, "_asyncio_future_blocking", False) is True
        if self._is_future:
            # Set from the `await` until a task waits. Another coroutine may await it before that.
            waiting._asyncio_future_blocking = False
        self._loop = loop
        self.steps = steps
        self._is_begun = self._has_turn = False
        self._error: tuple[Any, ...] | None = None
        """What the next step begins with, where that is an error."""

    @classmethod
    def of_new(
        cls, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, steps: Steps
    ) -> ResumedHandler:
        """Return this for a coroutine that has not been started."""
        made = cls(coroutine, None, loop, steps)
        made._is_begun = True
        return made

    def send(self, value: Any) -> Any:
        """Hand what is waited for to the task, then go on, each time when the step may run.

        Also with what was thrown while it might not.
        """
        if not self._is_begun:
            return self._begun()
        if not (self._has_turn or self.steps.may_resume()):
            return self._turn()
        self._has_turn = False
        error, self._error = self._error, None
        if error is None:
            return self._step(self._coroutine.send, value)
        try:
            return self._step(self._coroutine.throw, *error)
        finally:
            del error  # its traceback refers to this frame

    def throw(self, *error: Any) -> Any:
        """Raise in the coroutine, in the order of the steps where that does not cancel it.

        What a task that is cancelled waits for is cancelled in its place; here the task has not
        begun to wait, so it is done for it.
        """
        is_cancel = isinstance(error[0], asyncio.CancelledError)
        if not self._is_begun:
            waiting = self._begun()
            if self._is_future:
                if is_cancel and waiting.cancel():
                    return waiting
                waiting._asyncio_future_blocking = False  # since the task does not get it
        if is_cancel:  # which ends the wait for a step too
            self._has_turn, self._error = False, None
        elif not (self._has_turn or self.steps.may_resume()):
            self._error = error
            return self._turn()
        self._has_turn = False
        try:
            return self._step(self._coroutine.throw, *error)
        finally:
            del error  # its traceback refers to this frame

    def _begun(self) -> Any:
        """Return what is waited for, as a coroutine that awaits it hands it to its task."""
        self._is_begun = True
        waiting, self._waiting = self._waiting, None
        if self._is_future:
            waiting._asyncio_future_blocking = True
        return waiting

    def _turn(self) -> Turn:
        self._has_turn = True
        return Turn(self._loop, self.steps)

    def _step(self, resume: Callable[..., Any], *arguments: Any) -> Any:
        began = perf_counter()
        try:
            return resume(*arguments)
        except asyncio.CancelledError:
            raise StopIteration from None
        finally:
            self.steps.resumed(perf_counter() - began)
            del arguments  # the traceback of an error among them refers to this frame

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("only a task goes on with it")


async def gather(*coroutines: Coroutine[Any, Any, T]) -> list[T | BaseException]:
    """Return what coroutines that run at the same time return, or what they raise.

    Where a handler calls this, each of their steps is in the order of the handler's own.
    """
    loop = asyncio.get_running_loop()
    steps = _current_steps()
    if steps is None:
        return await asyncio.gather(*coroutines, return_exceptions=True)
    tasks: list[asyncio.Task[T]] = [
        loop.create_task(ResumedHandler.of_new(one, loop, steps)) for one in coroutines
    ]
    return await asyncio.gather(*tasks, return_exceptions=True)


def _current_steps() -> Steps | None:
    """Return what decides when the current handler goes on, None outside of handlers."""
    task = asyncio.current_task()
    found = task if isinstance(task, FirstStep) else task.get_coro() if task is not None else None
    return found.steps if isinstance(found, FirstStep | ResumedHandler) else None
