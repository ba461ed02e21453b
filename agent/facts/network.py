"""The networks of a pod, from its annotations or, without a CNI meta-plugin, its own IPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from netutil.agent.errors import Invalid, Missing, Reason
from netutil.agent.parsers.annotation import is_set
from netutil.agent.parsers.network_status import NetworkStatus, parse_network_status
from netutil.agent.parsers.userspace import (
    CONFIGURATION_DATA,
    MAPPED_DIRECTORY,
    UserspaceInterface,
    parse_userspace,
)

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
NETWORKS_STATUS = "k8s.v1.cni.cncf.io/networks-status"
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ less the final NUL, netdevice(7)


class Source(Enum):
    """Where the networks of a pod were found."""

    NETWORK_STATUS = NETWORK_STATUS
    NETWORKS_STATUS = NETWORKS_STATUS
    POD_STATUS = "status.podIPs"


@dataclass(frozen=True, slots=True)
class Networks:
    """The network attachments of a pod, in the order of their source."""

    status: tuple[NetworkStatus, ...]
    source: Source


def network_characters(annotations: Mapping[str, str]) -> int:
    """Return how much text the networks of a pod are read from."""
    _, status = _status_text(annotations)
    return len(status) + len(annotations.get(CONFIGURATION_DATA, ""))


def read_networks(annotations: Mapping[str, str], pod_ips: Sequence[str], *, pod: str) -> Networks:
    """Return the networks of a pod.

    The network-status annotation counts, else its older spelling, else the
    pod's own IPs make one default network without a name. An annotation without text is as
    one that is not there. A network without device-info is
    given that of the Userspace CNI plugin's annotation, and a network that only that one names
    comes last. `pod` names the pod for errors. Raises `Inconsistent` for an annotation that breaks
    its specification.
    """
    networks = _reported(annotations, pod_ips, pod)
    text = annotations.get(CONFIGURATION_DATA)
    if text is None or not is_set(text):
        return networks
    read = f"annotation {CONFIGURATION_DATA} of pod {pod}"
    left = {
        one.interface: one
        for one in parse_userspace(text, annotations.get(MAPPED_DIRECTORY, ""), read=read)
    }
    status = [_with_device(one, left.pop(one.interface, None)) for one in networks.status]
    status += [
        _with_device(NetworkStatus(one.network, one.interface), one) for one in left.values()
    ]
    return Networks(tuple(status), networks.source)


def _with_device(network: NetworkStatus, found: UserspaceInterface | None) -> NetworkStatus:
    if found is None or network.device_info is not None:
        return network
    return replace(
        network, device_info=found.device_info, device_info_annotation=CONFIGURATION_DATA
    )


def _reported(annotations: Mapping[str, str], pod_ips: Sequence[str], pod: str) -> Networks:
    source, text = _status_text(annotations)
    if source is not Source.POD_STATUS:
        read = f"annotation {source.value} of pod {pod}"
        return Networks(parse_network_status(text, read=read), source)
    if not pod_ips:
        return Networks((), Source.POD_STATUS)
    return Networks((NetworkStatus(ips=tuple(pod_ips), default=True),), Source.POD_STATUS)


def _status_text(annotations: Mapping[str, str]) -> tuple[Source, str]:
    """Return the annotation that counts and its text; `Source.POD_STATUS` and "" if none does."""
    for source in (Source.NETWORK_STATUS, Source.NETWORKS_STATUS):
        text = annotations.get(source.value)
        if text is not None and is_set(text):
            return source, text
    return Source.POD_STATUS, ""


def of_interface(networks: Networks, interface: str) -> Networks:
    """Return only what `interface` names; "" is all.

    Raises `Invalid` for what cannot be an interface name (dev_valid_name in the kernel's
    net/core/dev.c), `Missing` if the pod has none of that name.
    """
    if not interface:
        return networks
    ensure_interface_name(interface)
    found = tuple(status for status in networks.status if status.interface == interface)
    if not found:
        raise interface_not_found(
            interface, [status.interface for status in networks.status], networks.source.value
        )
    return Networks(found, networks.source)


def interface_not_found(interface: str, known: Sequence[str], read: str) -> Missing:
    """Return the error for an interface that is none of the known ones."""
    names = ", ".join(name or "(unnamed)" for name in known)
    return Missing(
        Reason.INTERFACE_NOT_FOUND,
        f"The pod has no interface {interface!r}; it has: {names or 'none'}.",
        read=read,
        advice="Without a network-status annotation there are no interface names but those of live"
        " links, which GetInterfaces has. Ask for all with an empty name.",
    )


def ensure_interface_name(interface: str) -> None:
    """Raise `Invalid` for what the kernel takes for no interface name."""
    bad_character = any(character in "/:" or character.isspace() for character in interface)
    too_long = len(interface.encode()) > _LONGEST_INTERFACE_NAME
    if bad_character or too_long or interface in (".", ".."):
        raise Invalid(
            Reason.INTERFACE_MALFORMED,
            f"{interface!r:.64} cannot be an interface name.",
            read="the request's field int",
            advice=f"A name has at most {_LONGEST_INTERFACE_NAME} bytes, without slash,"
            " colon or blank.",
        )
