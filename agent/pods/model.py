"""The part of a Kubernetes pod that the agent uses, decoded from the kubelet's JSON.

Names and meanings are those of core/v1 (Kubernetes API reference, Pod v1). Only
the fields that stand here are built; msgspec skips all others without
allocating them, so a list of 250 pods costs milliseconds.
"""

from __future__ import annotations

from typing import Any

import msgspec


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
    state: dict[str, Any] | None = None


class IP(msgspec.Struct, frozen=True):
    """PodIP."""

    ip: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """PodStatus."""

    phase: str = ""
    qos_class: str = ""
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
