"""All targets."""

from __future__ import annotations

from tests.fuzz import apiserver, csi, first_bytes, grpc_server, kernel, kubernetes, wire
from tests.fuzz.target import Target


def targets() -> dict[str, Target]:
    """The targets by name."""
    every = (
        *kernel.targets(),
        *kubernetes.targets(),
        *apiserver.targets(),
        *wire.targets(),
        *grpc_server.targets(),
        *first_bytes.targets(),
        *csi.targets(),
    )
    named = {target.name: target for target in every}
    if len(named) < len(every):
        raise ValueError("two targets of one name")
    return named
