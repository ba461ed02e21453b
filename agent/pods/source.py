"""What a source of the pod list promises."""

from __future__ import annotations

import os
from typing import Protocol

from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.model import Pod

LARGEST_BYTES = 64 * 1024 * 1024
"""The largest pod list that is read: 250 pods are about 5 MiB."""


class PodSource(Protocol):
    """Reads all pods of this node. `fetch` is called by one thread at a time."""

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods now. Blocks, within the source's own timeouts. Raises `Unavailable`."""

    def describe(self) -> str:
        """Return what is read: an address or a path."""

    def close(self) -> None:
        """End a fetch that is under way and let go of what the source holds.

        May be called from any thread and more than once; does not block.
        """


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


def told_again(error: Unavailable, retry_after_seconds: float) -> Unavailable:
    """Return the error anew, without its traceback.

    An error that is kept would keep the frames it was raised in, and the body of
    the answer with them; one that many callers raise would collect all their frames.
    """
    told = Unavailable(error.reason, error.sentence, read=error.read, advice=error.advice)
    told.retry_after_seconds = retry_after_seconds
    return told
