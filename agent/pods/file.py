"""A pod list in a file, as the kubelet's /pods prints it, in JSON or YAML."""

from __future__ import annotations

from pathlib import Path

import msgspec
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.source import Signature, signature, unavailable

LARGEST_BYTES = 64 * 1024 * 1024


class FileSource:
    """Reads the file again when it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: tuple[Signature, tuple[Pod, ...]] | None = None

    def describe(self) -> str:
        """Return the path."""
        return self._path

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods. Raises `Unavailable` for a file that is missing, too large or broken."""
        try:
            found = signature(self._path)
            if self._read is not None and self._read[0] == found:
                return self._read[1]
            with Path(self._path).open("rb") as file:
                body = file.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise unavailable(
                f"The pod list file cannot be read: {error.strerror}.",
                self._path,
                "Name a readable PodList in --pod-source file:PATH.",
            ) from error
        if len(body) > LARGEST_BYTES:
            raise self._broken(f"it is larger than {LARGEST_BYTES} bytes")
        try:
            pods = decode_pod_list(body if body.lstrip()[:1] == b"{" else _json_of_yaml(body))
        except ValueError as error:
            raise self._broken(str(error)) from error
        self._read = (found, pods)
        return pods

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def _broken(self, why: str) -> Exception:
        return unavailable(
            f"The pod list file cannot be used: {why}.",
            self._path,
            "Write the file under another name and rename it into place.",
        )


def _json_of_yaml(body: bytes) -> bytes:
    import yaml  # noqa: PLC0415 - only a YAML file pays for it

    try:
        document = yaml.load(body, Loader=yaml.CSafeLoader)
        return msgspec.json.encode(document)
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise ValueError(f"it is neither JSON nor YAML: {' '.join(str(error).split())}") from None
