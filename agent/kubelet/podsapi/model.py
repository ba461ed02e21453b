"""Converts a marshalled core/v1 Pod to the agent's `Pod`. Pure.

What comes out equals what `agent.pods.model` reads from the same pod in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError, Message
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod, PodListMalformed, convert_pod
from netutil.podsapi.v1alpha1 import pod_pb2


def decode_pod(body: bytes, flaws: Flaws | None = None) -> Pod:
    """Return the pod; `flaws` counts its fields that are not understood.

    Raises `PodListMalformed` for bytes that are no pod, and for one without UID or name.
    """
    pod = _parsed(body)
    if not pod.metadata.uid or not pod.metadata.name:
        raise PodListMalformed(f"it is no Pod: it has no UID or no name (of {len(body)} bytes)")
    try:
        return convert_pod(_document(pod), flaws or Flaws())
    except PodListMalformed as error:
        raise PodListMalformed(f"it is no Pod: {error} (of {len(body)} bytes)") from None


def decode_uid(body: bytes) -> str:
    """Return the UID of a pod of which no more is said. Raises as `decode_pod`."""
    uid = _parsed(body).metadata.uid
    if not uid or not isinstance(uid, str):
        raise PodListMalformed(f"it is no Pod: it has no UID (of {len(body)} bytes)")
    return uid


def _parsed(body: bytes) -> pod_pb2.Pod:
    try:
        return pod_pb2.Pod.FromString(body)
    except DecodeError as error:
        raise PodListMalformed(f"it is no Pod: {error} (of {len(body)} bytes)") from None


def _document(pod: pod_pb2.Pod) -> dict[str, Any]:
    """Return the pod as its JSON has it; text that is not UTF-8 is bytes."""
    metadata, spec, status = pod.metadata, pod.spec, pod.status
    return {
        "metadata": {
            "name": metadata.name,
            "uid": metadata.uid,
            "namespace": metadata.namespace or "default",
            "labels": _texts(metadata.labels),
            "annotations": _texts(metadata.annotations),
        },
        "spec": {
            "nodeName": spec.nodeName,
            "serviceAccountName": spec.serviceAccountName,
            "hostNetwork": spec.hostNetwork,
            "restartPolicy": spec.restartPolicy,
            "resources": _resources_if_any(spec),
            "containers": _containers(spec.containers),
            "initContainers": _containers(spec.initContainers),
            "ephemeralContainers": _containers(
                one.ephemeralContainerCommon for one in spec.ephemeralContainers
            ),
            "resourceClaims": [_set_fields(one) for one in spec.resourceClaims] or None,
        },
        "status": {
            "phase": status.phase,
            "qosClass": status.qosClass,
            "podIP": status.podIP,
            "podIPs": [{"ip": one.ip} for one in status.podIPs] or None,
            "containerStatuses": _statuses(status.containerStatuses),
            "initContainerStatuses": _statuses(status.initContainerStatuses),
            "ephemeralContainerStatuses": _statuses(status.ephemeralContainerStatuses),
            "allocatedResources": _amounts(status.allocatedResources) or None,
            "resources": _resources_if_any(status),
            "resourceClaimStatuses": [_set_fields(one) for one in status.resourceClaimStatuses]
            or None,
            "extendedResourceClaimStatus": _extended_resource_claim(status),
        },
    }


def _texts(found: Mapping[str, str]) -> dict[str, str] | bytes | None:
    """Return a map, None if it is empty, and bytes for one with a key that is not UTF-8."""
    try:
        return dict(found) or None
    except UnicodeDecodeError as error:
        return bytes(error.object)


def _set_fields(message: Message) -> dict[str, Any]:
    """Return the fields of a message that are set, each a text; bytes for what is not UTF-8."""
    names = (field.name for field in message.DESCRIPTOR.fields)
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _extended_resource_claim(status: pod_pb2.PodStatus) -> dict[str, Any] | None:
    if not status.HasField("extendedResourceClaimStatus"):
        return None
    found = status.extendedResourceClaimStatus
    return {
        "requestMappings": [_set_fields(one) for one in found.requestMappings] or None,
        "resourceClaimName": found.resourceClaimName,
    }


def _containers(containers: Iterable[pod_pb2.Container]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "resources": _resources(one.resources),
            "restartPolicy": one.restartPolicy,
        }
        for one in containers
    ]


def _resources_if_any(
    holder: pod_pb2.PodSpec | pod_pb2.PodStatus | pod_pb2.ContainerStatus,
) -> dict[str, Any] | None:
    return _resources(holder.resources) if holder.HasField("resources") else None


def _resources(resources: pod_pb2.ResourceRequirements) -> dict[str, Any]:
    return {
        "requests": _amounts(resources.requests),
        "limits": _amounts(resources.limits),
        "claims": [_set_fields(one) for one in resources.claims] or None,
    }


def _amounts(quantities: Mapping[str, pod_pb2.Quantity]) -> dict[str, str] | bytes:
    """Return quantities by name, and bytes for a name that is not UTF-8."""
    try:
        return {name: quantity.string for name, quantity in quantities.items()}
    except UnicodeDecodeError as error:
        return bytes(error.object)


def _statuses(statuses: Iterable[pod_pb2.ContainerStatus]) -> list[dict[str, Any]] | None:
    return [
        {
            "name": one.name,
            "containerID": one.containerID,
            "state": _state(one.state) if one.HasField("state") else None,
            "allocatedResources": _amounts(one.allocatedResources) or None,
            "resources": _resources_if_any(one),
            "allocatedResourcesStatus": _health(one.allocatedResourcesStatus),
        }
        for one in statuses
    ] or None


def _health(statuses: Iterable[pod_pb2.ResourceStatus]) -> list[dict[str, Any]] | None:
    return [
        {"name": one.name, "resources": [_set_fields(each) for each in one.resources] or None}
        for one in statuses
    ] or None


def _state(state: pod_pb2.ContainerState) -> dict[str, Any]:
    running = {"startedAt": _time(state.running.startedAt)} if state.HasField("running") else None
    return {
        "running": running,
        "waiting": {} if state.HasField("waiting") else None,
        "terminated": {} if state.HasField("terminated") else None,
    }


def _time(time: pod_pb2.Time) -> str | int:
    """Return it in RFC 3339, "" for the zero time; seconds that no calendar has stay a number."""
    if not time.seconds:
        return ""
    try:
        return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OSError, OverflowError, ValueError):
        return time.seconds
