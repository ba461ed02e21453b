"""The networks of a pod, from its annotations or, without a CNI meta-plugin, its own IPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from netutil.agent.errors import AgentError, FailedPrecondition, InvalidArgument, NotFound, Reason
from netutil.agent.facts.links import Link
from netutil.agent.facts.naming import interface_name, link_of
from netutil.agent.parsers.addresses import MAX_LINK_NAME_LENGTH, is_link_name
from netutil.agent.parsers.network_status import NetworkStatus, is_set, parse_network_status
from netutil.agent.parsers.userspace_cni import (
    CONFIGURATION_DATA,
    MAPPED_DIRECTORY,
    UserspaceInterface,
    parse_userspace,
)

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
NETWORKS_STATUS = "k8s.v1.cni.cncf.io/networks-status"


class Source(Enum):
    """Where the networks of a pod were found."""

    NETWORK_STATUS = NETWORK_STATUS
    NETWORKS_STATUS = NETWORKS_STATUS
    POD_STATUS = "status.podIPs"


@dataclass(frozen=True, slots=True)
class Networks:
    """The network attachments of a pod, in the order of their source.

    `device_info_error` is why the annotation of the Userspace CNI plugin is not understood: the
    networks that only that one names are not known, those of the other annotation are.
    """

    status: tuple[NetworkStatus, ...]
    source: Source
    device_info_error: AgentError | None = None

    @property
    def are_named(self) -> bool:
        """Return whether each network is reported with the name of its interface."""
        return all(one.interface for one in self.status)


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
    comes last. `pod` names the pod for errors. Raises `FailedPrecondition` for a network-status
    annotation that breaks its specification.
    """
    networks = _reported(annotations, pod_ips, pod)
    text = annotations.get(CONFIGURATION_DATA)
    if text is None or not is_set(text):
        return networks
    read = f"annotation {CONFIGURATION_DATA} of pod {pod}"
    try:
        devices = parse_userspace(text, annotations.get(MAPPED_DIRECTORY, ""), read=read)
    except FailedPrecondition as error:
        return replace(networks, device_info_error=error.with_traceback(None))
    left = {one.interface: one for one in devices}
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


def of_interface(
    networks: Networks, interface: str, links: Sequence[Link] = (), *, host_network: bool = False
) -> Networks:
    """Return only what `interface` names; "" is all.

    `links` are the pod's live ones, by index: a network that is reported without a name has that
    of its link. `host_network`: the pod is in the node's network, and its links are not listed.
    Raises `InvalidArgument` for what cannot be an interface name (dev_valid_name in the kernel's
    net/core/dev.c), `NotFound` if no network of that name is reported, and instead of it
    the error of an annotation that may name one and is not understood.
    """
    if not interface:
        return networks
    ensure_interface_name(interface)
    names = [interface_name(status, link_of(status, links)) for status in networks.status]
    found = tuple(
        status for status, name in zip(networks.status, names, strict=True) if name == interface
    )
    if not found and networks.device_info_error is not None:
        raise networks.device_info_error.without_frames()
    if not found and host_network:
        raise link_not_listed(interface, names, networks.source.value)
    if not found:
        raise _not_reported(interface, names, networks.source.value)
    return replace(networks, status=found)


def _not_reported(interface: str, known: Sequence[str], read: str) -> NotFound:
    """Return the error for an interface of which no network is reported; a link may be there."""
    return NotFound(
        Reason.INTERFACE_NOT_FOUND,
        f"No network of interface {interface!r} is reported; reported are: {_names(known)}.",
        read=read,
        advice="A live link that no CNI plugin reports is an answer of GetInterfaces only. Ask for"
        " all networks by leaving the name out.",
    )


def interface_not_found(interface: str, known: Sequence[str], read: str) -> NotFound:
    """Return the error for an interface that is none of the known ones."""
    return NotFound(
        Reason.INTERFACE_NOT_FOUND,
        f"The pod has no interface {interface!r}; it has: {_names(known)}.",
        read=read,
        advice="Leave the name out to ask for all.",
    )


def link_not_listed(interface: str, known: Sequence[str], read: str) -> NotFound:
    """Return the error for an interface that no network of a pod in the node's own network has."""
    return NotFound(
        Reason.INTERFACE_NOT_FOUND,
        f"The pod uses the node's own network, whose links are not listed, and no network of"
        f" interface {interface!r} is reported; reported are: {_names(known)}.",
        read=read,
        advice="Leave the name out to ask for all. `ip link` in the pod shows the node's links.",
    )


def _names(known: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(name or "(unnamed)" for name in known)) or "none"


def ensure_interface_name(interface: str) -> None:
    """Raise `InvalidArgument` for what the kernel takes for no interface name."""
    if not is_link_name(interface):
        raise InvalidArgument(
            Reason.INTERFACE_MALFORMED,
            f"{interface!r:.64} cannot be an interface name.",
            read="the request's field int",
            advice=f"A name has at most {MAX_LINK_NAME_LENGTH} bytes, no slash, colon or blank.",
        )
