"""A pod list in a file, as the kubelet's /pods prints it, in JSON or YAML."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import Pod, PodListMalformed, convert_pod_list, decode_pod_list
from netutil.agent.pods.source import LARGEST_BYTES, Signature, signature, unavailable

_SETTLED_SECONDS = 2.0
"""Age from which a second write cannot bear the same time: coarser than any file system's clock."""
_DEEPEST_NESTING = 100


class FileSource:
    """Reads the file again when it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
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
                body = file.read(LARGEST_BYTES + 1)
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
        if len(body) > LARGEST_BYTES:
            raise self._broken(f"it is larger than {LARGEST_BYTES} bytes")
        try:
            if body.lstrip()[:1] == b"{":
                return decode_pod_list(body)
            return convert_pod_list(_parsed_yaml(body))
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
        # CSafeLoader builds recursively in C, without a limit: deep nesting ends the process.
        depth = deepest = 0
        for event in yaml.parse(body, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
        document: object = None
        if deepest <= _DEEPEST_NESTING:
            document = yaml.load(body, Loader=yaml.CSafeLoader)
    except Exception as error:  # noqa: BLE001 - PyYAML's constructors fail in many ways
        text = " ".join(str(error).split())
        raise PodListMalformed(f"it is neither JSON nor YAML: {text:.300}") from None
    if deepest > _DEEPEST_NESTING:
        raise PodListMalformed(f"it is nested deeper than {_DEEPEST_NESTING} levels")
    return document
