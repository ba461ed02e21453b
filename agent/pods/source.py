"""What a source of the pod list promises."""

from __future__ import annotations

import os
from typing import Protocol

from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.model import Pod


class PodSource(Protocol):
    """Reads all pods of this node. Used by one thread at a time."""

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods now. Blocks, within the source's own timeouts. Raises `Unavailable`."""

    def describe(self) -> str:
        """Return what is read: an address or a path."""

    def close(self) -> None:
        """Let go of what the source holds. A running `fetch` may fail for it."""


Signature = tuple[int, int, int, int]


def signature(path: str) -> Signature:
    """Return what changes when a file is replaced or written, links followed. Raises OSError.

    Secrets and service accounts are rotated by switching a symbolic link.
    """
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def unavailable(sentence: str, read: str, advice: str) -> Unavailable:
    """Return the error of a source that could not be read."""
    return Unavailable(Reason.POD_LIST_UNAVAILABLE, sentence, read=read, advice=advice)
