"""A source that pushes the lists of a test, and one place where its pods are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.base import Comparison, ConfirmTiming, SourceKind, Take, unavailable

from tests.support.fakes.kubelet import list_json, pod_json


def made(*names: str, annotations: dict[str, str] | None = None) -> tuple[Pod, ...]:
    """Running pods with one container each; the nth has n as its UID and container ID."""
    return decode_pod_list(
        list_json(
            *(
                pod_json(name, f"{number:032x}", {"app": f"{number:064x}"}, annotations)
                for number, name in enumerate(names, start=1)
            )
        )
    )


class PushingSource:
    """`follow` waits for steps: pods to push, an error to fail with, None to end.

    `lists` are what comparisons find, in order; then they find nothing. `resumes` lets streams
    after the first go on from it.
    """

    kind = SourceKind("A source that pushes")
    first_pause_seconds = 0.5
    longest_pause_seconds = 30.0

    def __init__(self, confirm: ConfirmTiming | None = None) -> None:
        self.confirm_timing = confirm or ConfirmTiming()
        self.lists: list[Comparison | Exception] = []
        self.compared = self.started_over = 0
        self.resumes = False
        self.steps: asyncio.Queue[tuple[Pod, ...] | Unavailable | None] = asyncio.Queue()
        self.streams = 0
        self.cancelled = self.closed = False
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def push(self, pods: tuple[Pod, ...]) -> tuple[Pod, ...]:
        self.steps.put_nowait(pods)
        return pods

    async def compare(self) -> Comparison:
        self.compared += 1
        found = self.lists.pop(0) if self.lists else Comparison(datetime.now(UTC))
        if isinstance(found, Exception):
            raise found
        return found

    def start_over(self) -> None:
        self.started_over += 1
        self.steps.put_nowait(None)

    async def follow(self, take: Take[Pod]) -> None:
        self.streams += 1
        resumed = self.resumes and self.streams > 1
        try:
            while (step := await self.steps.get()) is not None:
                if isinstance(step, Unavailable):
                    raise step
                take(step, self.now(), resumed=resumed)
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def describe(self) -> str:
        return "there"

    async def close(self) -> None:
        self.closed = True


class Pauses:
    """A sleep that ends when the test says so, and remembers how long it was to be."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.begun.set()
        await self.over.wait()
        self.over.clear()

    async def next(self) -> float:
        await self.begun.wait()
        self.begun.clear()
        return self.asked[-1]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def broken(retry_after_seconds: float = 0.0) -> Unavailable:
    error = unavailable("It is broken.", "there", "Fix it.")
    error.retry_after_seconds = retry_after_seconds
    return error
