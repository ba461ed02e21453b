"""A pod list with lookups by container ID and by pod UID. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.pod_cgroups import normalise_uid
from netutil.agent.pods.kept import NOTHING_KEPT, Kept, KeptBudget
from netutil.agent.pods.model import ContainerStatus, Pod
from netutil.agent.pods.pending import has_nameless, only_unreported, pending

_SECOND = timedelta(seconds=1)
_LATEST = datetime.max.replace(tzinfo=UTC) - _SECOND
"""RFC 3339 can say later times than a datetime can reach."""
_OWN_UID, _MIRRORED_HASH, _HASH = 3, 2, 1
"""How much a pod's claim to a UID is worth; see `_strength`."""


@dataclass(frozen=True, slots=True)
class Match:
    """A pod, and which of its containers was asked for.

    `container_name` and `container_kind` ("container", "init", "ephemeral") are
    "" while the container is not in the pod's status. `observed_at` is when the
    list was asked for (UTC). `container_id` is the one that was asked for, None for the pod's
    own cgroup.
    """

    pod: Pod
    container_name: str
    container_kind: str
    observed_at: datetime
    is_remembered: bool = False
    """The last list lacks the pod: an earlier one had it."""
    container_id: str | None = None
    is_unlisted: bool = False
    """The container is none of those that the pod's spec and status have, now or later."""
    kept: Kept = field(default=NOTHING_KEPT, init=False, repr=False, compare=False)
    """What was made of this match: of this one alone, so `replace` does not copy it."""

    def has_uid(self, pod_uid: str | None) -> bool:
        """Return whether a UID is the pod's own, and not only one that its annotation claims."""
        return pod_uid is not None and normalise_uid(pod_uid) == normalise_uid(
            self.pod.metadata.uid
        )

    @property
    def started_at(self) -> datetime | None:
        """Return when the container was started (UTC), None if the list does not say."""
        return next(
            (
                status.started_at
                for kind, status in self.pod.container_statuses
                if (kind, status.name) == (self.container_kind, self.container_name)
            ),
            None,
        )

    @property
    def started_by(self) -> datetime:
        """Return a time (UTC) by which the container was started; before, its name was another's.

        A status has whole seconds. What is not reported yet has only just been started.
        """
        started_at = self.started_at
        return min(started_at, _LATEST) + _SECOND if started_at else datetime.now(UTC)

    def if_only_container(self) -> Match:
        """Return the match with the container's name if the pod has but one container.

        The kubelet does not report a container while its postStart hook runs, and late
        otherwise. The name is used only while the list has no ID for that container: beside
        one that is reported, the container that was asked for is another.
        """
        if self.container_name or self.is_remembered or not self.container_id:
            return self
        name = only_unreported(self.pod)
        return replace(self, container_name=name, container_kind="container") if name else self

    def decided(self, has_ended: Callable[[ContainerStatus], bool]) -> Match:
        """Return what a list says that was asked for after the container was started.

        Where every container is reported under another ID, and runs, the container that was
        asked for is `is_unlisted`: no later list will name it. `has_ended` says of a container
        that is reported as running that it may have ended since, and been started again. The
        kubelet's own list has the status of a pod as the API server gave it back, and is late
        for as long as that server cannot be reached (pkg/kubelet, `GetPods`).
        """
        if self.container_name or self.is_remembered or not self.container_id:
            return self
        if not self.pod.spec.planned or has_nameless(self.pod) or pending(self.pod):
            return self.if_only_container()
        reported = (one for _, one in self.pod.container_statuses if one.state_name == "running")
        return self if any(map(has_ended, reported)) else replace(self, is_unlisted=True)


Occurrence = tuple[Pod, str, str]
"""A container: its pod, its name, and its kind."""


@dataclass(frozen=True, slots=True)
class PodList:
    """All pods of the node at one moment, indexed by pod UID and container ID."""

    pods: tuple[Pod, ...]
    observed_at: datetime
    _by_uid: Mapping[str, tuple[Pod, ...]] = field(repr=False)
    _by_container: Mapping[str, tuple[Occurrence, ...]] = field(repr=False)
    _named: dict[str, tuple[str | None, Match]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Matches that were found by container ID, each with the pod UID that was asked for."""
    budget: KeptBudget = field(default_factory=KeptBudget, init=False, repr=False, compare=False)
    """For what is kept with the matches of `named`."""

    def named(self, pod_uid: str | None, container_id: str) -> Match | None:
        """Return what `find` does for a container that the list names, else None.

        The match is the same object each time, and keeps what is made of it.
        """
        known = self._named.get(container_id)
        if known is not None and known[0] == pod_uid:
            return known[1]
        try:
            match = self.find(pod_uid, container_id)
        except FailedPrecondition:
            return None
        if match is None or not match.container_name:
            return None
        # No argument of Match: a variant of the match would copy what was made of this one.
        object.__setattr__(match, "kept", Kept(self.budget, match.pod.metadata.uid))
        self._named[container_id] = pod_uid, match
        return match

    def find(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return the pod by container ID, else by pod UID, None if neither is known.

        The UID may be spelled with dashes, underscores or neither. Raises
        `FailedPrecondition` if the container is in two pods, or in another pod than that
        of the UID, or if nothing but a UID that two pods claim is known.
        """
        owners = self._by_uid.get(normalise_uid(pod_uid), ()) if pod_uid else ()
        places = self._by_container.get(container_id, ()) if container_id else ()
        if len(places) > 1:
            raise _in_two_pods(f"container {container_id}", [pod for pod, _, _ in places])
        if places:
            pod, name, kind = places[0]
            if pod_uid and not any(owner is pod for owner in owners):
                raise _disagree(pod_uid, pod)
            return Match(pod, name, kind, self.observed_at, container_id=container_id)
        if len(owners) > 1:
            raise _in_two_pods(f"pod UID {pod_uid}", owners)
        if not owners:
            return None
        return Match(owners[0], "", "", self.observed_at, container_id=container_id or None)

    def has_same_pods(self, other: PodList) -> bool:
        """Return whether the two lists say the same, in whatever order and at whatever time."""

        def named(pods: tuple[Pod, ...]) -> dict[tuple[str, str], Pod]:
            return {(pod.metadata.uid, pod.full_name): pod for pod in pods}

        return self.pods is other.pods or named(self.pods) == named(other.pods)


def index(pods: Iterable[Pod], observed_at: datetime) -> PodList:
    """Return the list with its indexes; each pod is in it once.

    A static pod may come twice, as the kubelet's own entry and as its mirror on
    the API server: with the same name and the same UID in its cgroup. The entry
    that reports containers counts, of two such the kubelet's own.
    """
    same: dict[tuple[str, str], list[Pod]] = {}
    for pod in pods:
        same.setdefault((normalise_uid(pod.cgroup_uid), pod.full_name), []).append(pod)
    chosen = [(max(entries, key=_completeness), entries) for entries in same.values()]
    known = tuple(pod for pod, _ in chosen)
    return PodList(known, observed_at, _by_uid(chosen), _by_container(known))


def _completeness(pod: Pod) -> tuple[bool, bool]:
    return bool(pod.container_statuses), pod.metadata.uid == pod.cgroup_uid


def _by_uid(chosen: Iterable[tuple[Pod, list[Pod]]]) -> dict[str, tuple[Pod, ...]]:
    """Return for each UID the pods whose claim to it is the strongest."""
    claims: dict[str, dict[int, list[Pod]]] = {}
    for pod, entries in chosen:
        strengths: dict[str, int] = {}
        for entry in entries:
            hashed = normalise_uid(entry.cgroup_uid)
            strengths[hashed] = max(strengths.get(hashed, 0), _strength(entry))
            strengths[normalise_uid(entry.metadata.uid)] = _OWN_UID
        for uid, strength in strengths.items():
            claims.setdefault(uid, {}).setdefault(strength, []).append(pod)
    return {uid: tuple(by_strength[max(by_strength)]) for uid, by_strength in claims.items()}


def _strength(pod: Pod) -> int:
    """Return what a pod's claim to its `cgroup_uid` is worth.

    An annotation is written by the creator of the pod: a tenant could name
    another pod's UID in it. So a pod's own UID outweighs every annotation.
    """
    if normalise_uid(pod.metadata.uid) == normalise_uid(pod.cgroup_uid):
        return _OWN_UID
    return _MIRRORED_HASH if pod.is_mirror else _HASH


def _by_container(pods: Iterable[Pod]) -> dict[str, tuple[Occurrence, ...]]:
    """Return for each container ID its place in each pod that has it."""
    found: dict[str, tuple[Occurrence, ...]] = {}
    for pod in pods:
        for kind, status in pod.container_statuses:
            others = found.get(status.id, ())
            if status.id and not any(other is pod for other, _, _ in others):
                found[status.id] = (*others, (pod, status.name, kind))
    return found


def _disagree(pod_uid: str, pod: Pod) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.CGROUPS_DISAGREE,
        f"The caller's cgroup names pod {pod_uid}, but its container belongs to"
        f" pod {pod.full_name}.",
        read="/proc/<pid>/cgroup and the pod list",
    )


def _in_two_pods(what: str, pods: Iterable[Pod]) -> FailedPrecondition:
    full_names = [pod.full_name for pod in pods]
    if len(set(full_names)) < len(full_names):  # a pod and the one that was created again
        full_names = [f"{pod.full_name} (UID {pod.metadata.uid})" for pod in pods]
    names = ", ".join(sorted(full_names))
    return FailedPrecondition(
        Reason.CONTAINER_IN_TWO_PODS,
        f"The pod list has {what} in more than one pod: {names}.",
        read="the pod list",
        advice="The pods cannot be distinguished; look at `netutil node pods` on the node.",
    )
