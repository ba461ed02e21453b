"""The error for a caller that the pod list does not contain."""

from __future__ import annotations

from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.parsers.cgroup import CgroupIdentity, is_written_as_static
from netutil.agent.pods.directory import PodDirectory

_MAX_NAMES = 3
_PAST_THE_KUBELET = (
    "Containers started past the kubelet are not answered; compare with `netutil node pods` on the"
    " node."
)
_MIRROR = (
    "Its UID is written as the kubelet writes those of static pods, so it is probably one. The API"
    " server knows a static pod by its mirror pod only, which admission or a missing namespace may"
    ' have refused: look for it in `kubectl get pods -A`, and for "mirror pod" in the kubelet\'s'
    " log. The other pod sources know static pods without one."
)


def unknown_caller(cgroups: CgroupIdentity, pods: PodDirectory) -> PermissionDenied:
    """Return the refusal of a caller whose pod or container a fresh list does not have."""
    kind, read = pods.kind, f"the pod list, {pods.describe()}"
    advice = kind.if_unknown or _PAST_THE_KUBELET
    if kind.needs_mirrors and is_written_as_static(cgroups):
        advice = _MIRROR
    if unusable := pods.flaws.entries_of_last_list:
        entries = "1 entry" if unusable == 1 else f"{unusable} entries"
        advice = (
            f"{entries} of the list could not be used, which may be the caller's pod: on the node,"
            f" `netutil node doctor` says why. Else: {advice}"
        )
    return PermissionDenied(
        Reason.UNKNOWN_TO_POD_LIST,
        f"{kind.name} does not know the caller's pod or container ({_names(cgroups)}).",
        read=read,
        advice=advice,
    )


def _names(cgroups: CgroupIdentity) -> str:
    """Return the pod's UID, else each container ID once: cgroup v1 names it in each hierarchy."""
    if cgroups.pod_uid:
        return cgroups.pod_uid
    ids = list(dict.fromkeys(one for p in cgroups.placements for one, _ in p.containers))
    more = f" and {len(ids) - _MAX_NAMES} more" if len(ids) > _MAX_NAMES else ""
    return f"{', '.join(ids[:_MAX_NAMES])}{more}"
