"""Reads the output of `caller.c`."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.v1alpha import netutil_pb2 as api

from tests.e2e.settings import RESULTS

_PREFIX_BYTES = 5  # of a gRPC message: compressed or not, and its length


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """Seconds from the container's first instruction to the end of the answer, and its message."""

    seconds: float
    message: bytes

    @property
    def pod(self) -> api.PodResponse:
        """The answer to GetPod."""
        return api.PodResponse.FromString(self.message)

    @property
    def cpu(self) -> api.CPUResponse:
        """The answer to GetCPUInfo."""
        return api.CPUResponse.FromString(self.message)


def first_answer(name: str) -> FirstAnswer:
    """Return what a caller wrote. Raises AssertionError if it was refused."""
    nanoseconds, body, blocks = (RESULTS / name).read_text(encoding="ascii").split()
    assert body != "-", f"{name} was refused; the header blocks in hexadecimal: {blocks}"
    content = bytes.fromhex(body)
    length = int.from_bytes(content[1:_PREFIX_BYTES])
    assert len(content) == _PREFIX_BYTES + length
    return FirstAnswer(int(nanoseconds) / 1e9, content[_PREFIX_BYTES:])
