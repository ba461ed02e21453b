"""Protocols of a pod source, and errors that all sources share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.model import Pod

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

MAX_BYTES = 64 * 1024 * 1024
"""The largest pod list that is read: 250 pods are about 5 MiB."""
MAX_PODS = 5000
"""The most pods that a pushed list holds: kubelets take 110 by default."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How a sentence names a source. `name` begins one.

    `if_unknown` is what to do about a caller that the source does not know, "" for what holds for
    all. `needs_mirrors`: it knows a static pod only by its mirror pod. `list_name` begins lines of
    the log, `plural` is what it lists.
    """

    name: str
    if_unknown: str = ""
    needs_mirrors: bool = False
    list_name: str = "pod list"
    plural: str = "pods"


class PodSource(Protocol):
    """Reads all pods of this node. `fetch` is called by one thread at a time."""

    @property
    def kind(self) -> SourceKind:
        """Return how a sentence names it."""

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods now. Blocks, within the source's own timeouts. Raises `Unavailable`."""

    def describe(self) -> str:
        """Return what is read: an address or a path."""

    def close(self) -> None:
        """End a fetch that is under way and release the source's resources.

        May be called from any thread and more than once; does not block.
        """


class Take(Protocol[T_contra]):
    """Takes what a source pushes. Called on the event loop; does not block."""

    def __call__(
        self, pods: tuple[T_contra, ...], observed_at: datetime, *, resumed: bool = False
    ) -> None:
        """Take all pods of the node as they were at a time (UTC).

        The same object as the time before says that nothing has changed since. `resumed`: the
        stream goes on where an earlier one ended, and did not begin with all pods. Such a stream
        proves nothing until a list has confirmed it.
        """


Difference = tuple[str, str, str]
"""A pod's UID, its version as the stream brought it and as a list has it; "" for none."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a list, asked for at a time (UTC), has otherwise than the stream has brought.

    `went_back`: the other side's versions are older than one that it gave out before.
    """

    asked_at: datetime
    differences: frozenset[Difference] = frozenset()
    went_back: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmTiming:
    """When a stream is compared with a list; all in seconds, but `unknown_burst`.

    `quiet_seconds` and up to `jitter_seconds` more after the last confirmation; up to
    `resumed_seconds` after a stream that goes on from an earlier one; at once for an unknown
    caller, `unknown_burst` times in a row and then once in `unknown_seconds`. A difference that
    lasts for `grace_seconds` is one that the stream will not bring. After
    `max_unconfirmed_seconds` without a confirmation the stream is not healthy.
    """

    quiet_seconds: float = 40.0
    jitter_seconds: float = 10.0
    resumed_seconds: float = 10.0
    grace_seconds: float = 2.0
    max_unconfirmed_seconds: float = 60.0
    unknown_seconds: float = 10.0
    unknown_burst: int = 5


@runtime_checkable
class StreamingSource(Protocol[T_co]):
    """Follows the pods of this node, or other objects, over a stream. Used on one event loop."""

    @property
    def kind(self) -> SourceKind:
        """Return how a sentence names it."""

    @property
    def first_pause_seconds(self) -> float:
        """Return the longest pause after a first failure; it doubles with each failure."""

    @property
    def longest_pause_seconds(self) -> float:
        """Return the longest pause before a failed stream is started again."""

    @property
    def confirm_timing(self) -> ConfirmTiming:
        """Return when a stream is compared with a list."""

    async def compare(self) -> Comparison:
        """Ask for a list, and compare it with what the stream has brought by then.

        While a stream is followed. Raises `Unavailable` if the list cannot be fetched.
        """

    def start_over(self) -> None:
        """End the stream that is followed; the next begins with all pods. Does not block."""

    async def follow(self, take: Take[T_co]) -> None:
        """Hand over all pods, and again at each change, until the stream ends.

        The first call of `take` says that the stream is there. Returns when the stream
        ends as streams do, raises `Unavailable` when it cannot be opened or breaks. Both
        are followed by another call. When cancelled, it does not wait for the other side.
        """

    def describe(self) -> str:
        """Return what is followed: an address or a path."""

    async def close(self) -> None:
        """Release the source's resources. No call of `follow` is under way."""


Signature = tuple[int, int, int, int]


def signature(status: os.stat_result) -> Signature:
    """Return what changes when a file is replaced or written.

    Taken of the resolved file, since secrets and service accounts are rotated by
    switching a symbolic link (`..data`).
    """
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def unavailable(sentence: str, read: str, advice: str) -> Unavailable:
    """Return the error of a source that could not be read."""
    return Unavailable(Reason.POD_LIST_UNAVAILABLE, sentence, read=read, advice=advice)


def unexpected_error(error: Exception, read: str) -> Unavailable:
    """Return the error of a failure that no source expects."""
    return unavailable(
        f"The pod source failed in an unforeseen way: {type(error).__name__}.",
        read,
        "This is a bug of the agent; its log holds the traceback.",
    )


def shutting_down(read: str) -> Unavailable:
    """Return the error of calls that wait for a list when the agent stops."""
    return Unavailable(
        Reason.AGENT_RESTARTING,
        "The agent is stopping and reads no pod list any more.",
        read=read,
        advice="Connect and ask again.",
    )
