"""Errors of the Pods API socket, each with one message and an advice. Pure."""

from __future__ import annotations

import grpc
from netutil.agent.errors import Unavailable
from netutil.agent.kubelet.socket import LOOK_AT_KUBELET, KubeletSocket, printable
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.base import unavailable

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The largest event that is read: etcd takes objects of 1.5 MiB."""

_MISSING = (
    "The API is alpha in Kubernetes 1.35 and off by default: look at the kubelet's feature gates,"
    " whether --pods-api names its socket, and whether that directory is mounted into the agent."
    " --pod-source kubelet needs no such socket."
)
_SOCKET = KubeletSocket(
    name="Pods API",
    api="its Pods API",
    flag="--pods-api",
    if_missing=_MISSING,
    if_denied="The agent has to run as root of the host; look also at SELinux and AppArmor.",
)


def not_connected(error: OSError, path: str) -> Unavailable:
    """Return the error of a socket that cannot be connected to."""
    sentence, advice = _SOCKET.explained(error)
    return unavailable(sentence, path, advice)


def call_failed(error: grpc.aio.AioRpcError, path: str) -> Unavailable:
    """Return the error of a stream that ended with a status other than OK."""
    code, said = error.code(), printable(error.details() or "")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return unavailable(
            f"The kubelet does not know its pods yet: {said}.",
            path,
            "It is starting; the agent tries again.",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return unavailable(
            f"This kubelet does not serve the Pods API v1alpha1: {said}.", path, _MISSING
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if "larger than max" in said:
            return unavailable(
                f"An event of the kubelet's Pods API is larger than {MAX_EVENT_BYTES} bytes.",
                path,
                "Look at what answers on that socket; no pod is so large.",
            )
        return unavailable(
            f"The kubelet refuses to push pods: {said}.",
            path,
            "All callers on the node share 100 calls a second, and who reads too slowly is"
            " dropped: look at the agent's CPU, and who else asks that often.",
        )
    return unavailable(
        f"The kubelet ended the stream of pods with {code.name}: {said}.", path, LOOK_AT_KUBELET
    )


def too_slow(seconds: float, path: str) -> Unavailable:
    """Return the error of a kubelet that sends no pods."""
    return unavailable(
        f"The kubelet did not send all its pods within {seconds:g} s.",
        path,
        "The kubelet is overloaded or stuck; the agent tries again.",
    )


def stuck(seconds: float, path: str) -> Unavailable:
    """Return the error of a kubelet that says nothing, not even when it is asked."""
    return unavailable(
        f"The kubelet did not answer on its Pods API socket within {seconds:g} s.",
        path,
        "The kubelet is overloaded or stuck; the agent tries again.",
    )


def ended_early(path: str) -> Unavailable:
    """Return the error of a stream that ended before all pods were sent."""
    return unavailable(
        "The kubelet ended the stream before it had sent its pods.", path, LOOK_AT_KUBELET
    )


def malformed(error: PodListMalformed, path: str) -> Unavailable:
    """Return the error of a stream that breaks the API."""
    return unavailable(
        f"What the kubelet's Pods API sends cannot be used: {error}.",
        path,
        "Look at what answers on that socket, and at the kubelet's version: drafts of this API"
        " had other numbers.",
    )
