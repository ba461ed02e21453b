"""Containers of a pod that may run although the pod list does not report them yet. Pure.

The kubelet reports the ID of a container some time after its start. A container ID that the
list does not have is that of such a container, or of none that the kubelet ever reports: the
pod's sandbox, a sandbox runtime's processes (gVisor), a container started past the kubelet.
"""

from __future__ import annotations

from collections.abc import Iterator

from netutil.agent.pods.model import Pod
from netutil.agent.pods.spec import PlannedContainer


def pending(pod: Pod) -> tuple[str, ...]:
    """Return the names of the containers that may have been started since they were reported.

    A container without a name is left out: see `has_nameless`.

    A container that is reported as running is none of them: one container never runs twice at a
    time. Init containers, other than sidecars, are over once a container of the pod runs.
    Sources: the kubelet's `generateAPIPodStatus` (each container of the spec gets a status);
    Kubernetes documentation, "Pod Lifecycle", "Sidecar Containers" and "Ephemeral Containers".
    """
    states = {(kind, status.name): status.state_name for kind, status in pod.container_statuses}
    is_initialised = any(
        kind == "container" and state == "running" for (kind, _), state in states.items()
    )
    return tuple(
        one.name
        for one in _containers(pod)
        if one.name
        and _is_pending(one, states.get((one.kind, one.name), "waiting"), is_initialised)
    )


def has_nameless(pod: Pod) -> bool:
    """Return whether the list has a container of the pod without its name."""
    return any(not one.name for one in _containers(pod))


def only_unreported(pod: Pod) -> str:
    """Return the name of the pod's only container while the list has no ID for it, else ""."""
    if any(status.id for _, status in pod.container_statuses):
        return ""
    return pod.spec.only_container


def _is_pending(container: PlannedContainer, state: str, is_initialised: bool) -> bool:
    if state == "running":
        return False
    if container.kind == "init" and not container.restarts:
        return not is_initialised
    return state == "waiting" or container.restarts


def _containers(pod: Pod) -> Iterator[PlannedContainer]:
    """Yield the containers of the spec, and those that only the status has (a trimmed list)."""
    yield from pod.spec.planned
    planned = {(one.kind, one.name) for one in pod.spec.planned}
    for kind, status in pod.container_statuses:
        if (kind, status.name) not in planned:
            yield PlannedContainer(kind, status.name, restarts=kind == "container")
