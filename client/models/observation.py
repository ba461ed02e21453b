"""Snapshots of a Watch stream, each with the parts that changed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from netutil.client.documents import document
from netutil.client.models.core import Environment
from netutil.client.models.devices import All

PARTS = ("pod", "cpu", "environment", "network_status", "interfaces", "hugepages", "resources")


@dataclass(frozen=True, slots=True)
class Observation:
    """One snapshot of a stream.

    `snapshot` is complete, with the environment. `version` is 1 for the first of a stream.
    `changed` names the parts that differ from the one before ("network_status"); it is empty in the
    first. `observed_at` is when the agent made it.
    """

    snapshot: All
    version: int
    changed: tuple[str, ...]
    observed_at: datetime | None


class SnapshotMerger:
    """Completes the snapshots of one stream: only the first has the environment."""

    def __init__(self) -> None:
        self._environment: Environment | None = None

    def merge(self, observation: Observation) -> Observation:
        """The observation with the environment."""
        if observation.snapshot.environment is not None:
            self._environment = observation.snapshot.environment
            return observation
        return replace(
            observation, snapshot=replace(observation.snapshot, environment=self._environment)
        )


def changed_parts(before: All, now: All) -> tuple[str, ...]:
    """The parts that differ, without values that change all the time (message WatchResponse)."""
    old, new = lasting(before), lasting(now)
    return tuple(part for part in PARTS if old.get(part) != new.get(part))


def lasting(facts: All) -> dict[str, Any]:
    """The parts as plain values, without values that change all the time; errors by part."""
    parts: dict[str, Any] = document(facts)
    for error in parts.pop("errors"):
        parts[error["part"]] = {"error": error["reason"] or error["code"]}
    found: dict[str, Any] = {name: _without_times(part) for name, part in parts.items()}
    for interface in _listed(found["interfaces"], "interfaces"):
        if interface["link"]:
            interface["link"].pop("counters", None)
    for request in _listed(found["resources"], "claims"):
        request["error"] = _lasting_error("claims_error", request["error"])
    for usage in _listed(found["hugepages"], "usage"):
        usage.pop("usage_bytes")
        usage.pop("failures")
    for pool in _listed(found["hugepages"], "pools"):
        for name in set(pool) - {"page_size_bytes"}:
            pool.pop(name)
    return found


def _without_times(part: Any) -> Any:
    if not part:
        return part
    return {k: _lasting_error(k, v) for k, v in part.items() if k != "observed_at"}


def _lasting_error(name: str, value: Any) -> Any:
    """The error of a piece of a part without its sentence, as those of whole parts."""
    if name.endswith("_error") and isinstance(value, dict):
        return {"error": value["reason"] or value["code"]}
    return value


def _listed(part: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (part or {}).get(name) or []
    return found
