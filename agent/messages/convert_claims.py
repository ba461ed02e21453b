"""Converts the devices of ResourceClaims to messages of the API. Pure."""

from __future__ import annotations

from netutil.agent.facts.claims import InterfaceClaim
from netutil.agent.messages.convert import timestamp
from netutil.agent.messages.status import part_error, truncate_utf8
from netutil.agent.parsers.claims import (
    Attribute,
    ClaimDevice,
    ClaimRequest,
    ClaimSource,
    DeviceCondition,
    NetworkData,
)
from netutil.agent.parsers.pci import PciInfo
from netutil.v1alpha import netutil_pb2 as api

_SOURCES = {
    ClaimSource.NONE: api.CLAIM_SOURCE_UNSPECIFIED,
    ClaimSource.NODE: api.CLAIM_SOURCE_NODE,
    ClaimSource.API_SERVER: api.CLAIM_SOURCE_API_SERVER,
}


def request(found: ClaimRequest) -> api.ClaimRequest:
    """Return a request of a claim and its devices."""
    return api.ClaimRequest(
        pod_claim=found.pod_claim,
        claim_name=found.claim_name,
        claim_namespace=found.claim_namespace,
        claim_uid=found.claim_uid or "",
        request=found.request,
        driver=found.driver,
        source=_SOURCES[found.source],
        generation=found.generation or 0,
        devices=[_device(one) for one in found.devices],
        error=part_error("claims", found.error) if found.error is not None else None,
        extended_resource=found.extended_resource,
    )


def interface_claim(found: InterfaceClaim) -> api.InterfaceClaim:
    """Return the device of a claim that an interface is."""
    return api.InterfaceClaim(
        pod_claim=found.request.pod_claim,
        claim_name=found.request.claim_name,
        request=found.request.request,
        driver=found.request.driver,
        source=_SOURCES[found.request.source],
        device=_device(found.device),
    )


def pci_info(pci: PciInfo) -> api.PCIInfo:
    """Return a PCI device as the host shows it."""
    return api.PCIInfo(**{name: getattr(pci, name) for name in pci.__dataclass_fields__})


def _device(found: ClaimDevice) -> api.ClaimDevice:
    return api.ClaimDevice(
        pool=found.pool,
        device=found.name,
        attributes={name: _attribute(one) for name, one in found.attributes or ()},
        network_data=_network_data(found.network_data) if found.network_data else None,
        pci=pci_info(found.pci) if found.pci is not None else None,
        health=found.health or "",
        health_message=truncate_utf8(found.health_message or ""),
        share_id=found.share_id or "",
        conditions=[_condition(one) for one in found.conditions or ()],
    )


def _condition(found: DeviceCondition) -> api.DeviceCondition:
    since = found.last_transition_time
    return api.DeviceCondition(
        type=found.type,
        status=found.status,
        reason=truncate_utf8(found.reason),
        message=truncate_utf8(found.message),
        last_transition_time=timestamp(since) if since is not None else None,
    )


def _attribute(found: Attribute) -> api.DeviceAttribute:
    """Return a value: the fields of an attribute have the names of those of the message."""
    fields = ((name, getattr(found, name)) for name in Attribute.__struct_fields__)
    return api.DeviceAttribute(**{name: value for name, value in fields if value is not None})


def _network_data(found: NetworkData) -> api.ClaimNetworkData:
    return api.ClaimNetworkData(
        interface_name=found.interface_name or "",
        ips=found.ips or (),
        hardware_address=found.hardware_address or "",
    )
