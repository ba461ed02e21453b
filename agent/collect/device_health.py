"""The health of devices as the kubelet reports it in the pod's status (KEP-4680). Pure.

Source: status.containerStatuses[].allocatedResourcesStatus. The kubelet names a device of an
extended resource by its ID. The kubelet names a device of a claim by the first of its CDI devices,
or by "driver/pool/device" if it has none (pkg/kubelet/cm/dra, UpdateAllocatedResourcesStatus);
PodResources says which CDI devices are a device's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import cast

from netutil.agent.collect.results import NO_HEALTH, DeviceHealth
from netutil.agent.facts.claims import Claims
from netutil.agent.kubelet.podresources.model import DynamicResource
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import ResourceStatus

_CLAIM = "claim:"
_KEPT = "health of devices"
_Health = tuple[str, str]
"""Health and message."""
_Device = tuple[str, str, str, str]
"""Claim, driver, pool and device."""


def device_health(match: Match) -> DeviceHealth:
    """Return the health of a container's devices of extended resources, once for each match."""
    known = match.kept.get(_KEPT)
    if known is not None:
        return cast(DeviceHealth, known)
    found = {
        (status.name, device): one
        for status in _statuses(match)
        if not status.name.startswith(_CLAIM)
        for device, one in _by_id(status)
    }
    health = DeviceHealth(found) if found else NO_HEALTH
    match.kept.keep(_KEPT, health, 0)
    return health


def with_health(claims: Claims, match: Match, dynamic: Iterable[DynamicResource]) -> Claims:
    """Return the claims with the health of their devices. `dynamic` is what PodResources says."""
    health: dict[str, dict[str, _Health]] = {}
    for status in _statuses(match):
        if status.name.startswith(_CLAIM):
            # "claim:<name in the pod's spec>" or "claim:<name>/<request>".
            name = status.name.removeprefix(_CLAIM).partition("/")[0]
            health.setdefault(name, {}).update(_by_id(status))
    if not health:
        return claims
    names = dict(_cdi_names(dynamic))
    requests = (
        _request_with_health(one, health.get(one.pod_claim, {}), names) for one in claims.requests
    )
    return replace(claims, requests=tuple(requests))


def _request_with_health(
    request: ClaimRequest, health: Mapping[str, _Health], names: Mapping[_Device, str]
) -> ClaimRequest:
    def healthy(device: ClaimDevice) -> ClaimDevice:
        key = (request.claim_name, request.driver, device.pool, device.name)
        found = health.get(names.get(key, "")) or health.get("/".join(key[1:]))
        return replace(device, health=found[0], health_message=found[1]) if found else device

    if not health:
        return request
    return replace(request, devices=tuple(map(healthy, request.devices)))


def _cdi_names(dynamic: Iterable[DynamicResource]) -> Iterator[tuple[_Device, str]]:
    """Yield each device of claims with the first of its CDI devices."""
    for claim in dynamic:
        for one in claim.claim_resources:
            if one.cdi_devices:
                key = (claim.claim_name, one.driver_name, one.pool_name, one.device_name)
                yield key, one.cdi_devices[0]


def _statuses(match: Match) -> tuple[ResourceStatus, ...]:
    """Return what the status of a container says, nothing for a container without a name."""
    if not match.container_name:
        return ()
    for _, status in match.pod.container_statuses:
        if status.name == match.container_name:
            return status.allocated_resources_status or ()
    return ()


def _by_id(status: ResourceStatus) -> Iterator[tuple[str, _Health]]:
    for one in status.resources or ():
        if one.health and one.resource_id:
            yield one.resource_id, (one.health, one.message or "")
