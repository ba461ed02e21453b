"""Pod source: a file with a PodList, as the kubelet's /pods prints it, in JSON or YAML."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from netutil.agent.errors import Unavailable
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod, PodListMalformed, convert_pod_list, decode_pod_list
from netutil.agent.pods.sources.base import MAX_BYTES, Signature, SourceKind, signature, unavailable

if TYPE_CHECKING:
    from yaml import CSafeLoader, Event

_SETTLED_SECONDS = 2.0
"""Age from which a second write cannot have the same time: coarser than any file system's clock."""
_MAX_NESTING = 100
_TEXT_IN_KUBERNETES = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
"""Kinds of YAML 1.1 that Kubernetes reads as text: 2018-03-01T10:00:02Z, and =."""


class FileSource:
    """Reads the file again when it has changed."""

    kind = SourceKind(
        "The file of --pod-source",
        "The file may be old, or another node's: compare it with `netutil node pods` on the node.",
    )

    def __init__(self, path: str, flaws: Flaws | None = None) -> None:
        """`flaws` counts what of the pods is not understood."""
        self._path = path
        self._flaws = flaws or Flaws()
        self._read: tuple[Signature, tuple[Pod, ...]] | None = None

    def describe(self) -> str:
        """Return the path."""
        return self._path

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods, the same object while the file is the same.

        Raises `Unavailable` for a file that is missing, too large or broken.
        """
        try:
            status = os.stat(self._path)
            if self._read is not None and self._read[0] == signature(status):
                return self._read[1]
            if not stat.S_ISREG(status.st_mode):  # to open a FIFO could block for ever
                raise self._broken("it is no regular file")
            with Path(self._path).open("rb") as file:
                status = os.fstat(file.fileno())
                body = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise unavailable(
                f"The pod list file cannot be read: {error.strerror}.",
                self._path,
                "Name a readable PodList in --pod-source file:PATH.",
            ) from error
        pods = self._decoded(body)
        settled = time.time() - status.st_mtime > _SETTLED_SECONDS
        self._read = (signature(status), pods) if settled else None
        return pods

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def _decoded(self, body: bytes) -> tuple[Pod, ...]:
        if len(body) > MAX_BYTES:
            raise self._broken(f"it is larger than {MAX_BYTES} bytes")
        try:
            if body.lstrip()[:1] == b"{":
                return decode_pod_list(body, self._flaws)
            return convert_pod_list(_parsed_yaml(body), self._flaws)
        except PodListMalformed as error:
            raise self._broken(str(error)) from None

    def _broken(self, why: str) -> Unavailable:
        return unavailable(
            f"The pod list file cannot be used: {why}.",
            self._path,
            "Write the file under another name and rename it into place.",
        )


def _parsed_yaml(body: bytes) -> object:
    """Return the one document. Raises `PodListMalformed`, with line and column."""
    import yaml  # noqa: PLC0415 - only a YAML file pays for it

    try:
        _ensure_simple(yaml.parse(body, Loader=yaml.CSafeLoader))
        document: object = yaml.load(body, Loader=_loader())  # noqa: S506 - it is the safe one
    except PodListMalformed:
        raise
    except Exception as error:  # noqa: BLE001 - PyYAML's constructors fail in many ways
        # Not in its own words, which quote the file: an alias that is none, a number.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        kind = type(error).__name__
        raise PodListMalformed(f"it is neither JSON nor YAML: {kind}{where}") from None
    return document


@cache
def _loader() -> type[CSafeLoader]:
    """Return PyYAML's safe loader, to which a time is text: a date is no JSON."""
    from yaml import CSafeLoader  # noqa: PLC0415

    class Loader(CSafeLoader):
        """Of its own, since PyYAML keeps its rules with the class."""

    Loader.yaml_implicit_resolvers = {
        first: [one for one in found if one[0] not in _TEXT_IN_KUBERNETES]
        for first, found in CSafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _ensure_simple(events: Iterator[Event]) -> None:
    """Raise `PodListMalformed` at the first event of what would cost more than its length.

    CSafeLoader builds recursively in C, without a limit: deep nesting ends the process. libyaml
    looks at all levels that are open at each token: 100 kB of brackets took 3 to 34 s. A few
    hundred bytes of aliases of aliases expand to more than any memory holds.
    """
    from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent  # noqa: PLC0415

    depth = 0
    for event in events:
        if isinstance(event, AliasEvent):
            raise PodListMalformed("it has an alias, which no kubelet prints")
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if depth > _MAX_NESTING:
            raise PodListMalformed(f"it is nested deeper than {_MAX_NESTING} levels")
