"""Reads the status of a pod."""

from __future__ import annotations

from typing import Any


def is_ready(pod: dict[str, Any]) -> bool:
    """Return whether all containers of a pod of the kubelet's list are ready."""
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all(one["ready"] for one in statuses)


def has_failed(pod: dict[str, Any]) -> bool:
    """Return whether a pod will never run."""
    return bool(pod["status"].get("phase") == "Failed")
