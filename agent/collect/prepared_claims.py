"""Compares drivers' files with what the kubelet prepared for a container. Opens nothing.

PodResources names the devices of each claim that the kubelet prepared for a container
(`dynamic_resources` of Kubernetes 1.34: driver, pool, device and CDI devices). A file that has
another device of the claim was left behind of an earlier claim of the same name. A driver that
writes metadata also adds a CDI device `<driver>/metadata=<claim UID>_<request>`, which names the
claim's UID (k8s.io/dynamic-resource-allocation/kubeletplugin, writeCDISpec). A kubelet or driver
that does not say this proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.kubelet.podresources.model import ClaimResource, DynamicResource
from netutil.agent.parsers.claims import ClaimRequest, ClaimSource

_READ = "the device metadata of drivers on the node, and dynamic_resources of PodResources"
_CDI_KIND = "metadata"


@dataclass(frozen=True, slots=True)
class PreparedClaim:
    """A claim as the kubelet prepared it for a container.

    `devices` are (driver, pool, device). `uids` are the UIDs of the claim that CDI devices name.
    """

    devices: frozenset[tuple[str, str, str]]
    uids: frozenset[str]


def prepared_claims(
    dynamic: Iterable[DynamicResource], namespace: str
) -> Mapping[str, PreparedClaim]:
    """Return the prepared claims of a namespace by name.

    A claim of which the kubelet does not name all drivers and devices is left out.
    """
    found: dict[str, PreparedClaim] = {}
    for claim in dynamic:
        resources = claim.claim_resources
        if claim.claim_namespace != namespace or not resources:
            continue
        if all(one.driver_name and one.device_name for one in resources):
            found[claim.claim_name] = PreparedClaim(
                frozenset((one.driver_name, one.pool_name, one.device_name) for one in resources),
                frozenset(uid for one in resources for uid in _uids(one)),
            )
    return found


def without_stale(
    requests: Iterable[ClaimRequest], prepared: Mapping[str, PreparedClaim]
) -> Iterator[ClaimRequest]:
    """Yield requests of files, with an error instead of devices that the kubelet did not prepare.

    An empty list of devices is no contradiction: a driver may know nothing yet.
    """
    for one in requests:
        claim = prepared.get(one.claim_name)
        if claim is None or one.source is not ClaimSource.NODE or one.error is not None:
            yield one
            continue
        why = _contradiction(one, claim)
        yield one if not why else replace(one, devices=(), error=_stale(one, why))


def _uids(resource: ClaimResource) -> Iterator[str]:
    for name in resource.cdi_devices:
        kind, _, device = name.partition("=")
        uid, separator, _ = device.partition("_")
        if kind == f"{resource.driver_name}/{_CDI_KIND}" and uid and separator:
            yield uid


def _contradiction(request: ClaimRequest, claim: PreparedClaim) -> str:
    """Return what of a request the kubelet did not prepare, "" if it prepared all of it."""
    if claim.uids and request.claim_uid and request.claim_uid not in claim.uids:
        named = ", ".join(one[:64] for one in sorted(claim.uids)[:4])
        return f"is of UID {request.claim_uid:.64}, and the kubelet prepared {named}"
    for device in request.devices:
        if (request.driver, device.pool, device.name) not in claim.devices:
            names = f"{device.pool:.64}/{device.name:.64}"
            return f"has device {names}, which the kubelet did not prepare for this container"
    return ""


def _stale(request: ClaimRequest, why: str) -> FailedPrecondition:
    claim = f"{request.claim_namespace}/{request.claim_name}"
    return FailedPrecondition(
        Reason.DEVICE_METADATA_CONTRADICTS,
        f"The file of driver {request.driver} about claim {claim} {why}.",
        read=_READ,
        advice="A driver left a file of an earlier claim of that name behind; compare the file with"
        " the claim, and remove the directory of the earlier one on the node.",
    )
