"""The error for a process whose container has no name in the pod list. Pure."""

from __future__ import annotations

from netutil.agent.errors import AgentError, FailedPrecondition, Reason, Unavailable
from netutil.agent.pods.index import Match
from netutil.agent.pods.pending import pending

_ID_CHARACTERS = 12
"""So many characters of a container ID are shown, as crictl does."""
_MAX_NAMES = 4
_SANDBOX = "A sandbox runtime (gVisor) runs the containers of a pod in processes of its own"


def unnamed(match: Match, pid: str) -> AgentError:
    """Return the error for a match without a container's name.

    `pid` is as in a request: "" is the calling process, else sentence and advice are about that
    process, by the number that the request gave it. `FailedPrecondition` where asking again does
    not help, else `Unavailable`.
    """
    pod = match.pod.full_name
    process = f"Process {pid}" if pid else "The calling process"
    if match.container_id is None:
        ask = "Ask about a process in one of its containers, or ask" if pid else "Ask"
        return FailedPrecondition(
            Reason.NOT_IN_A_CONTAINER,
            f"{process} is in the cgroup of pod {pod} itself, not in one of its containers.",
            read="/proc/<pid>/cgroup",
            advice=f"{_SANDBOX}, outside of their cgroups."
            f" {ask} from a pod without a sandbox runtime.",
        )
    ask = "Ask about a process in a container" if pid else "Ask from a container"
    container = match.container_id[:_ID_CHARACTERS]
    if match.is_unlisted:
        return FailedPrecondition(
            Reason.CONTAINER_NOT_LISTED,
            f"{process} is in container {container} of pod {pod}, and the pod list"
            f" reports the pod's containers under other IDs: {_reported(match)}.",
            read="the pod list",
            advice=f"Probably the kubelet did not start that container. {_SANDBOX}, in the cgroup"
            f" of the pod's sandbox. {ask} of the pod's spec.",
        )
    names = pending(match.pod)
    awaited = f" It may be {_some(names)}, just started." if names else ""
    return Unavailable(
        Reason.CONTAINER_NOT_REPORTED,
        f"{process} is in container {container} of pod {pod}, which the pod list does not report"
        " yet.",
        read="the pod list",
        advice=f"Ask again in a moment.{awaited}",
    )


def _reported(match: Match) -> str:
    return _some(
        [
            f"{status.name} ({status.id[:_ID_CHARACTERS]}, {status.state_name})"
            for _, status in match.pod.container_statuses
        ]
    )


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
