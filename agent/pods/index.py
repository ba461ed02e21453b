"""A pod list that can be asked for a container. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from netutil.agent.errors import Inconsistent, Reason
from netutil.agent.parsers.cgroup import normalise_uid
from netutil.agent.pods.model import Pod


@dataclass(frozen=True, slots=True)
class Match:
    """A pod, and which of its containers was asked for.

    `container_name` and `container_kind` ("container", "init", "ephemeral") are
    "" while the container is not in the pod's status. `observed_at` is when the
    list was asked for (UTC).
    """

    pod: Pod
    container_name: str
    container_kind: str
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class PodList:
    """All pods of the node at one moment, indexed by pod UID and container ID."""

    pods: tuple[Pod, ...]
    observed_at: datetime
    _by_uid: dict[str, Pod] = field(repr=False)
    _by_container: dict[str, tuple[Match, ...]] = field(repr=False)

    def find(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return the pod by container ID, else by pod UID (normalised), None if neither is known.

        Raises `Inconsistent` if the container is in two pods, or in another
        pod than that of the UID.
        """
        pod = self._by_uid.get(pod_uid) if pod_uid else None
        matches = self._by_container.get(container_id, ()) if container_id else ()
        if len(matches) > 1:
            raise _in_two_pods(container_id, matches)
        if not matches:
            return Match(pod, "", "", self.observed_at) if pod else None
        (match,) = matches
        if pod_uid and pod is not match.pod:
            raise Inconsistent(
                Reason.CGROUPS_DISAGREE,
                f"The caller's cgroup names pod {pod_uid}, but its container belongs to"
                f" pod {match.pod.full_name}.",
                read="/proc/<pid>/cgroup and the pod list",
            )
        return match


def index(pods: Iterable[Pod], observed_at: datetime) -> PodList:
    """Return the list with its indexes.

    A static pod is known by its config hash. Where it stands twice (the kubelet's own entry
    and its mirror on the API server), the first that reports containers counts.
    """
    by_uid: dict[str, Pod] = {}
    for pod in pods:
        key = normalise_uid(pod.cgroup_uid)
        known = by_uid.get(key)
        if known is None or (not known.container_statuses and pod.container_statuses):
            by_uid[key] = pod
    by_container: dict[str, tuple[Match, ...]] = {}
    for pod in by_uid.values():
        for kind, status in pod.container_statuses:
            if status.id:
                match = Match(pod, status.name, kind, observed_at)
                by_container[status.id] = (*by_container.get(status.id, ()), match)
    return PodList(tuple(by_uid.values()), observed_at, by_uid, by_container)


def _in_two_pods(container_id: str | None, matches: tuple[Match, ...]) -> Inconsistent:
    names = ", ".join(sorted(match.pod.full_name for match in matches))
    return Inconsistent(
        Reason.CONTAINER_IN_TWO_PODS,
        f"The pod list has container {container_id} in more than one pod: {names}.",
        read="the pod list",
        advice="No pod can be told from the other; look at the kubelet's /pods.",
    )
