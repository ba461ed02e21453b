"""From a marshalled core/v1 Pod to the value that the agent works with. Pure.

What comes out equals what `agent.pods.model` reads from the same pod in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from netutil.agent.pods.model import (
    IP,
    ContainerState,
    ContainerStatus,
    Metadata,
    Pod,
    PodListMalformed,
    Present,
    Running,
    Status,
)
from netutil.agent.pods.spec import Container, Resources, Spec
from netutil.podsapi.v1alpha1 import pod_pb2


def decode_pod(body: bytes) -> Pod:
    """Return the pod. Raises `PodListMalformed` for bytes that are none, or bear no UID."""
    try:
        return _pod(pod_pb2.Pod.FromString(body))
    except (DecodeError, OSError, OverflowError, ValueError) as error:
        raise PodListMalformed(f"it is no Pod: {error} (of {len(body)} bytes)") from None


def decode_uid(body: bytes) -> str:
    """Return the UID of a pod of which no more is said. Raises as `decode_pod`."""
    return decode_pod(body).metadata.uid


def _pod(pod: pod_pb2.Pod) -> Pod:
    metadata, spec, status = pod.metadata, pod.spec, pod.status
    if not metadata.uid or not metadata.name:
        raise ValueError("it has no UID or no name")
    return Pod(
        metadata=Metadata(
            name=metadata.name,
            uid=metadata.uid,
            namespace=metadata.namespace or "default",
            labels=dict(metadata.labels) or None,
            annotations=dict(metadata.annotations) or None,
        ),
        spec=Spec(
            node_name=spec.nodeName,
            service_account_name=spec.serviceAccountName,
            host_network=spec.hostNetwork,
            restart_policy=spec.restartPolicy or None,
            containers=_containers(spec.containers),
            init_containers=_containers(spec.initContainers),
            ephemeral_containers=_containers(
                one.ephemeralContainerCommon for one in spec.ephemeralContainers
            ),
        ),
        status=Status(
            phase=status.phase,
            qos_class=status.qosClass,
            pod_ip=status.podIP,
            pod_ips=tuple(IP(one.ip) for one in status.podIPs) or None,
            container_statuses=_statuses(status.containerStatuses),
            init_container_statuses=_statuses(status.initContainerStatuses),
            ephemeral_container_statuses=_statuses(status.ephemeralContainerStatuses),
        ),
    )


def _containers(containers: Iterable[pod_pb2.Container]) -> tuple[Container, ...]:
    return tuple(
        Container(
            name=one.name,
            restart_policy=one.restartPolicy or None,
            resources=Resources(
                requests=_amounts(one.resources.requests), limits=_amounts(one.resources.limits)
            ),
        )
        for one in containers
    )


def _amounts(quantities: Mapping[str, pod_pb2.Quantity]) -> dict[str, str]:
    return {name: quantity.string for name, quantity in quantities.items()}


def _statuses(
    statuses: Iterable[pod_pb2.ContainerStatus],
) -> tuple[ContainerStatus, ...] | None:
    found = tuple(
        ContainerStatus(
            name=one.name,
            container_id=one.containerID,
            state=_state(one.state) if one.HasField("state") else None,
        )
        for one in statuses
    )
    return found or None


def _state(state: pod_pb2.ContainerState) -> ContainerState:
    return ContainerState(
        running=Running(_time(state.running.startedAt)) if state.HasField("running") else None,
        waiting=Present() if state.HasField("waiting") else None,
        terminated=Present() if state.HasField("terminated") else None,
    )


def _time(time: pod_pb2.Time) -> str:
    """Return it in RFC 3339, "" for the zero time."""
    if not time.seconds:
        return ""
    # Raises OSError, OverflowError or ValueError for what no calendar has.
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
