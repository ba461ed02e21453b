"""Checks what the pod list reports of a pod's networks and resources, and parses the networks."""

from __future__ import annotations

import re
from dataclasses import replace

from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.network import NETWORK_STATUS, NETWORKS_STATUS, Networks, read_networks
from netutil.agent.parsers.userspace_cni import CONFIGURATION_DATA
from netutil.agent.pods.model import Pod

_IPS = (("status", "podIPs"), ("status", "podIP"))
_OF_POD = (
    ("spec", "resources"),
    ("status", "resources"),
    ("status", "allocatedResources"),
)
_LISTS = {
    "spec.containers": "container",
    "spec.initContainers": "init",
    "status.containerStatuses": "container",
    "status.initContainerStatuses": "init",
}
"""Lists of containers that may ask for something, and the kind of container in each."""
_OF_CONTAINER = re.compile(
    r"(?P<list>[a-zA-Z.]+)\[(?P<number>[0-9]+)\]"
    r"(?P<field>$|\.(?:name|restartPolicy|resources(?!\.claims)|allocatedResources)(?![a-zA-Z]))"
)
"""Paths of what decides the amounts of a container: its own entry, or such a field of it."""


def ensure_networks_understood(pod: Pod) -> None:
    """Raise `FailedPrecondition` if the pod list has something in their place that is not
    understood.

    Without it the pod would seem to have no such annotation, and so its own IPs alone.
    """
    if not pod.not_understood:
        return
    annotations = pod.metadata.annotations or {}
    for name in (NETWORK_STATUS, NETWORKS_STATUS):
        if name in annotations:
            return
        if odd := pod.not_understood_at("metadata", "annotations", name):
            raise _unknown(f"annotation {name}", odd, pod)
    if pod.ips:
        return
    for path in _IPS:
        if odd := pod.not_understood_at(*path):
            raise _unknown("status.podIP", odd, pod)


def networks_of(pod: Pod) -> Networks:
    """Return the networks of a pod that `ensure_networks_understood` lets pass.

    Raises `FailedPrecondition` for a network-status annotation that breaks its specification.
    """
    annotations = pod.metadata.annotations or {}
    networks = read_networks(annotations, pod.ips, pod=pod.full_name)
    odd = pod.not_understood_at("metadata", "annotations", CONFIGURATION_DATA)
    if not odd:
        return networks
    error = _unknown(f"annotation {CONFIGURATION_DATA}", odd, pod)
    return replace(networks, device_info_error=error)


def _unknown(what: str, odd: str, pod: Pod) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.NETWORK_STATUS_MALFORMED,
        f"The pod list has something else than text as {what} of pod {pod.full_name}"
        f" ({odd} is not understood).",
        read=f"{what} of pod {pod.full_name}",
        advice="Look at the pod in the pod source; Kubernetes takes only text there.",
    )


def ensure_resources_understood(pod: Pod, container_name: str | None = None) -> None:
    """Raise `FailedPrecondition` if it is not understood what the pod's containers ask for.

    Without it a container would seem to ask for nothing, or to be granted what it asks for.
    `container_name` is the one that is asked about, None for all. What is odd of a container
    whose name is not known counts for each: it may be that one.
    """
    odd, owner = _odd_of_containers(pod, container_name)
    if odd:
        raise _unknown_amounts(odd, pod, container_name or owner)


def ensure_pod_resources_understood(pod: Pod) -> None:
    """Raise `FailedPrecondition` if it is not understood what the pod as a whole asks for."""
    for path in _OF_POD:
        if odd := pod.not_understood_at(*path):
            raise _unknown_amounts(odd, pod)


def _odd_of_containers(pod: Pod, container_name: str | None) -> tuple[str, str]:
    """Return the path of what is not understood, "" if all is, and its container if known."""
    for path in pod.not_understood:
        if path in ("spec", "status", *_LISTS):
            return path, ""
        match = _OF_CONTAINER.match(path)
        if match is None or match["list"] not in _LISTS:
            continue
        owner = _name_at(pod, match["list"], int(match["number"]))
        if not owner or container_name in (None, owner):
            return path, owner
    if any(not one.name for one in pod.spec.asking):
        return "the name of a container that has resources", ""
    # Every path that is kept was looked at.
    return pod.not_understood_at(), ""


def _name_at(pod: Pod, where: str, number: int) -> str:
    """Return the name of the container at a place of a list, "" if it is not known."""
    kind = _LISTS[where]
    if where.startswith("spec."):
        names = [one.name for one in pod.spec.planned if one.kind == kind]
    else:
        names = [status.name for of, status in pod.container_statuses if of == kind]
    return names[number] if number < len(names) else ""


def _unknown_amounts(odd: str, pod: Pod, container_name: str = "") -> FailedPrecondition:
    whose = f"container {container_name} of " if container_name else ""
    where = f"resources of {whose}pod {pod.full_name}"
    return FailedPrecondition(
        Reason.QUANTITY_MALFORMED,
        f"The {where} are not known: {odd} is not understood.",
        read=f"{where} in the pod list",
        advice="Look at the pod in the pod source; Kubernetes takes nothing of that kind there.",
    )
