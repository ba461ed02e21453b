"""The bounds of DESIGN section 9, by the key of the row that they are for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a figure may be, or the least with `at_least`; in the unit of its row."""

    value: float
    at_least: bool = False

    def met_by(self, value: float, *, tolerance: float = 1.0) -> bool:
        """Return whether a figure is within the bound, or past it by `tolerance` times at most."""
        if self.at_least:
            return value * tolerance >= self.value
        return value <= self.value * tolerance

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


def _at_most(value: float) -> Bound:
    return Bound(value)


def _at_least(value: float) -> Bound:
    return Bound(value, at_least=True)


BOUNDS = {
    # One call after the other on a kept connection, against the echo.
    "kept.GetPod.p50": _at_most(0.5),
    "kept.GetNetworkStatus.p50": _at_most(0.5),
    "kept.GetResource.p50": _at_most(0.5),
    "kept.GetCPUInfo.p50": _at_most(0.6),
    "kept.GetEnv.p50": _at_most(0.8),
    "kept.GetHugepages.p50": _at_most(1.0),
    "kept.GetInterfaces.p50": _at_most(1.5),
    "kept.GetAll.p50": _at_most(2.0),
    # The same, with the caller's own pid in the request.
    "own-pid.GetCPUInfo.p50": _at_most(0.6),
    "own-pid.GetEnv.p50": _at_most(0.8),
    # 8 connections with 4 calls each, against the echo.
    "throughput.GetPod": _at_least(2.5),
    "throughput.GetCPUInfo": _at_least(1.5),
    # From connect to the answer, against the echo.
    "fresh.GetPod.p50": _at_most(0.7),
    "fresh.GetAll.p50": _at_most(1.2),
    # Against the Go sidecar, with the caller's own pid in the request.
    "sidecar.GetCPUInfo.p50": _at_most(1.0),
    "sidecar.GetEnv.p50": _at_most(1.0),
    "sidecar.GetCPUInfo.rate": _at_least(1.0),
    "sidecar.GetEnv.rate": _at_least(1.0),
    # What the agent holds.
    "watch.110.memory": _at_most(48.0),  # MiB
    "claims.node.memory": _at_most(96.0),  # MiB
    "claims.apiserver.memory": _at_most(96.0),  # MiB, with the package kubernetes
    "claims.both.memory": _at_most(96.0),  # MiB, the same
    "held.memory": _at_most(16.0),  # KiB of a connection
    "held.descriptors": _at_most(3.0),
    "watch.110.cpu": _at_most(0.3),  # per cent of a core
    "client.cached": _at_most(0.5),  # µs
    "kubelet.gets": _at_most(1.0),  # per refresh
    "hostile.p99": _at_most(2.0),
}
