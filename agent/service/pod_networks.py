"""The networks of a pod, as far as the pod list lets them be told."""

from __future__ import annotations

from dataclasses import replace

from netutil.agent.errors import Inconsistent, Reason
from netutil.agent.facts.network import NETWORK_STATUS, NETWORKS_STATUS, Networks, read_networks
from netutil.agent.parsers.userspace import CONFIGURATION_DATA
from netutil.agent.pods.model import Pod

_IPS = (("status", "podIPs"), ("status", "podIP"))


def ensure_networks_understood(pod: Pod) -> None:
    """Raise `Inconsistent` if the pod list has something in their place that is not understood.

    Without it the pod would seem to have no such annotation, and so its own IPs alone.
    """
    if not pod.not_understood:
        return
    annotations = pod.metadata.annotations or {}
    for name in (NETWORK_STATUS, NETWORKS_STATUS):
        if name in annotations:
            return
        if not pod.is_understood("metadata", "annotations", name):
            raise _unknown(f"annotation {name}", pod)
    if not pod.ips and not all(pod.is_understood(*path) for path in _IPS):
        raise _unknown("status.podIP", pod)


def networks_of(pod: Pod) -> Networks:
    """Return the networks of a pod that `ensure_networks_understood` lets pass.

    Raises `Inconsistent` for a network-status annotation that breaks its specification.
    """
    annotations = pod.metadata.annotations or {}
    networks = read_networks(annotations, pod.ips, pod=pod.full_name)
    if pod.is_understood("metadata", "annotations", CONFIGURATION_DATA):
        return networks
    return replace(networks, device_info_error=_unknown(f"annotation {CONFIGURATION_DATA}", pod))


def _unknown(what: str, pod: Pod) -> Inconsistent:
    return Inconsistent(
        Reason.NETWORK_STATUS_MALFORMED,
        f"The pod list has something else than text as {what} of pod {pod.full_name}.",
        read=f"{what} of pod {pod.full_name}",
        advice="Look at the pod in the pod source; Kubernetes takes only text there.",
    )
