"""The part of a Kubernetes pod that the agent uses, decoded from the kubelet's JSON.

Names and meanings are those of core/v1 (Kubernetes API reference, Pod v1). Only
the fields that stand here are built; msgspec skips all others without
allocating them, so a list of 250 pods costs milliseconds.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

_LOG = logging.getLogger(__name__)

CONFIG_HASH = "kubernetes.io/config.hash"
"""Annotation of a static pod: the UID that the kubelet and the cgroups know it by."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """ObjectMeta."""

    name: str
    uid: str
    namespace: str = "default"
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Container, EphemeralContainer: the name and what it asks for."""

    name: str
    resources: dict[str, Any] | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """PodSpec."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """ContainerStatus. `container_id` is `<runtime>://<id>`, empty before the first start."""

    name: str
    container_id: str = msgspec.field(name="containerID", default="")
    state: dict[str, msgspec.Raw] | None = None

    @property
    def id(self) -> str:
        """Return the container ID without the runtime's prefix, "" before the first start."""
        return self.container_id.rpartition("://")[2]

    @property
    def state_name(self) -> str:
        """Return "running", "waiting" or "terminated"; "waiting" is also the API's default."""
        return next(iter(self.state or ()), "waiting")


class IP(msgspec.Struct, frozen=True):
    """PodIP."""

    ip: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """PodStatus."""

    phase: str = ""
    qos_class: str = msgspec.field(name="qosClass", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[IP, ...] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    ephemeral_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """Pod."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def full_name(self) -> str:
        """Return namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def cgroup_uid(self) -> str:
        """Return the UID that the pod's cgroups bear: a static pod's is its config hash."""
        return (self.metadata.annotations or {}).get(CONFIG_HASH) or self.metadata.uid

    @property
    def ips(self) -> tuple[str, ...]:
        """Return the pod's IPs, none twice."""
        many = tuple(one.ip for one in self.status.pod_ips or () if one.ip)
        return many or ((self.status.pod_ip,) if self.status.pod_ip else ())

    @property
    def container_statuses(self) -> tuple[tuple[str, ContainerStatus], ...]:
        """Return (kind, status) of every container: "init", "container" or "ephemeral"."""
        status = self.status
        return (
            *(("init", one) for one in status.init_container_statuses or ()),
            *(("container", one) for one in status.container_statuses or ()),
            *(("ephemeral", one) for one in status.ephemeral_container_statuses or ()),
        )


class _List(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...] | None = None
    kind: str = "PodList"


_LISTS = msgspec.json.Decoder(_List)
_PODS = msgspec.json.Decoder(Pod)


def decode_pod_list(body: bytes) -> tuple[Pod, ...]:
    """Return the pods of a PodList in JSON.

    A pod that is not as core/v1 says is left out and logged: it must not take
    the others' answers away. Raises ValueError, saying where, if the list
    itself is broken or is no PodList.
    """
    try:
        found = _LISTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no PodList: {error}") from None
    if found.kind not in ("PodList", "List"):
        raise ValueError(f"it is a {found.kind[:64]!r}, not a PodList")
    if found.items is None and b'"items"' not in body:
        raise ValueError("it has no items")
    pods = []
    for number, raw in enumerate(found.items or ()):
        try:
            pods.append(_PODS.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _LOG.warning("pod list: item %d is left out: %s", number, error)
    return tuple(pods)
