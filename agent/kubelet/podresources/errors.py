"""Errors of the PodResources socket, each with one message and an advice. Pure."""

from __future__ import annotations

import grpc
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.kubelet.podresources.model import PodResourcesMalformed
from netutil.agent.kubelet.socket import LOOK_AT_KUBELET, KubeletSocket, printable

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The largest answer that is read: what Kubernetes' own clients take."""

_MOUNT = (
    "Look whether the kubelet runs, whether --pod-resources names its socket, and whether that"
    " directory is mounted into the agent. Kubelets before 1.28 may have the feature gate"
    " KubeletPodResources off."
)
_RIGHTS = (
    "The agent has to run as root of the host, or with a group that may write to the socket;"
    " look also at SELinux and AppArmor."
)
_SOCKET = KubeletSocket(
    name="PodResources",
    api="PodResources",
    flag="--pod-resources",
    if_missing=_MOUNT,
    if_denied=_RIGHTS,
)


class MethodNotServed(Exception):
    """This kubelet does not have the method, or has it switched off."""


class PodNotFound(Exception):
    """The kubelet was asked for one pod and does not know it."""


def unavailable(sentence: str, read: str, advice: str) -> Unavailable:
    """Return the error of a kubelet that gave no answer."""
    return Unavailable(Reason.POD_RESOURCES_UNAVAILABLE, sentence, read=read, advice=advice)


def not_connected(error: OSError, path: str) -> Unavailable:
    """Return the error of a socket that cannot be connected to."""
    sentence, advice = _SOCKET.explained(error)
    return unavailable(sentence, path, advice)


def call_failed(error: grpc.aio.AioRpcError, method: str, path: str, seconds: float) -> Exception:
    """Return the error of a call that was answered with a status other than OK.

    `MethodNotServed` and `PodNotFound` where it says so, else `Unavailable`.
    """
    code, said = error.code(), printable(error.details() or "")
    if code is grpc.StatusCode.UNIMPLEMENTED or (
        # The kubelet's own words, of a Go error without a code: "… method disabled".
        code is grpc.StatusCode.UNKNOWN and said.endswith("disabled")
    ):
        return MethodNotServed(said)
    if method == "Get" and (
        code is grpc.StatusCode.NOT_FOUND
        # "pod <name> in namespace <namespace> not found", without a code likewise.
        or (code is grpc.StatusCode.UNKNOWN and said.endswith("not found"))
    ):
        return PodNotFound(said)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return unavailable(
            f"The kubelet did not answer PodResources {method} within {seconds:g} s.",
            path,
            "The kubelet is overloaded or stuck; the agent tries again.",
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if "larger than max" in said:
            return too_large(path)
        return unavailable(
            f"The kubelet refuses PodResources {method}, too many ask it: {said}.",
            path,
            "All callers on the node share 100 calls a second; find out who asks that often.",
        )
    return unavailable(
        f"The kubelet answered PodResources {method} with {code.name}: {said}.",
        path,
        LOOK_AT_KUBELET,
    )


def not_served(method: str, said: str, path: str) -> Unavailable:
    """Return the error of a method without which there is no answer."""
    return Unavailable(
        Reason.POD_RESOURCES_UNIMPLEMENTED,
        f"This kubelet does not serve PodResources v1 {method}: {said}.",
        read=path,
        advice="PodResources v1 needs Kubernetes 1.20 and the feature gates KubeletPodResources*.",
    )


def too_large(path: str) -> Unavailable:
    """Return the error of an answer over the bound."""
    return unavailable(
        f"The kubelet's PodResources answer is larger than {MAX_ANSWER_BYTES >> 20} MiB.",
        path,
        "Look at what answers on that socket; no node has so many devices.",
    )


def malformed(error: PodResourcesMalformed, path: str) -> Unavailable:
    """Return the error of an answer that breaks the API."""
    return unavailable(
        f"The kubelet's PodResources answer cannot be used: {error}.",
        path,
        "Look at what answers on that socket; the agent tries again.",
    )


def unexpected_error(error: Exception, path: str) -> Unavailable:
    """Return the error of a failure that nothing here expects."""
    return unavailable(
        f"Asking for PodResources failed in an unforeseen way: {type(error).__name__}.",
        path,
        "This is a bug of the agent; its log holds the traceback.",
    )
