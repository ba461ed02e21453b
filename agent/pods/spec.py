"""The part of a pod's spec that the agent uses (core/v1, PodSpec), and what the kubelet granted."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from netutil.agent.parsers.quantity import is_same, is_whole

HUGEPAGES = "hugepages-"
"""A resource name's beginning; the page size follows, "hugepages-2Mi"."""
Amounts = dict[str, Any]
"""Quantities by the resource's name. A quantity may be text or, by hand, a number."""


def _huge_pages(amounts: Amounts | None) -> Amounts | None:
    found = {name: amount for name, amount in (amounts or {}).items() if name.startswith(HUGEPAGES)}
    return found or None


def _is_guaranteed(requests: Amounts, limits: Amounts) -> bool:
    return all(
        limits.get(name) is not None and is_same(requests.get(name, limits[name]), limits[name])
        for name in ("cpu", "memory")
    )


class Requirements(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ResourceRequirements, as written."""

    requests: Amounts | None = None
    limits: Amounts | None = None


class ContainerClaim(msgspec.Struct, frozen=True, gc=False):
    """ResourceClaim of a container: an entry of `resourceClaims` of its pod's spec.

    `request` is the one request of the claim that is for the container, "" for all.
    """

    name: str = ""
    request: str = ""


class PodClaim(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """PodResourceClaim. A claim has a name of its own, or is made from a template."""

    name: str = ""
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class SchedulingGroup(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """PodSchedulingGroup: the PodGroup that a pod belongs to (core/v1, alpha in 1.36)."""

    pod_group_name: str | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ResourceRequirements: of requests and limits only huge pages and CPUs are kept, as written.

    A list of 250 pods would else hold a thousand unused dictionaries. A quantity is
    parsed where it is used. `is_guaranteed`: CPUs and memory are limited, to what is requested.
    """

    requests: Amounts | None = None
    limits: Amounts | None = None
    claims: tuple[ContainerClaim, ...] | None = None
    cpu_request: Any = msgspec.field(name="-cpu-request", default=None)
    cpu_limit: Any = msgspec.field(name="-cpu-limit", default=None)
    is_guaranteed: bool = msgspec.field(name="-guaranteed", default=False)

    def __post_init__(self) -> None:
        requests, limits = self.requests or {}, self.limits or {}
        put = msgspec.structs.force_setattr
        put(self, "cpu_request", requests.get("cpu"))
        put(self, "cpu_limit", limits.get("cpu"))
        put(self, "is_guaranteed", _is_guaranteed(requests, limits))
        put(self, "requests", _huge_pages(requests))
        put(self, "limits", _huge_pages(limits))

    @property
    def shares_cpus(self) -> bool:
        """Return whether it asks for CPUs, and not for a whole number of them."""
        cpus = self.cpu_limit if self.cpu_request is None else self.cpu_request
        return cpus is not None and not is_whole(cpus)

    @property
    def is_empty(self) -> bool:
        """Return whether it asks for nothing that is kept."""
        return not (
            self.requests
            or self.limits
            or self.claims
            or self.cpu_request is not None
            or self.cpu_limit is not None
        )


class Granted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the kubelet has granted a container, as its status says (KEP-1287).

    The request is the one that was admitted (`allocatedResources`), the limits those in force
    (`resources`); a spec says what is wanted, and may have been changed since. Of requests and
    limits only huge pages are kept.
    """

    cpu_request: Any = None
    cpu_limit: Any = None
    requests: Amounts | None = None
    limits: Amounts | None = None


def granted_of(allocated: Amounts | None, resources: Requirements | None) -> Granted | None:
    """Return what a status says was granted, None where it does not say."""
    if allocated is None and resources is None:
        return None
    in_force = resources or Requirements()
    requests = {**(in_force.requests or {}), **(allocated or {})}
    limits = in_force.limits or {}
    return Granted(
        cpu_request=requests.get("cpu"),
        cpu_limit=limits.get("cpu"),
        requests=_huge_pages(requests),
        limits=_huge_pages(limits),
    )


class Container(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Container. `restart_policy` is "Always" for an init container that goes on running."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str = ""


def _asking(containers: tuple[Container, ...] | None) -> tuple[Container, ...] | None:
    found = tuple(
        one for one in containers or () if one.resources is not None and not one.resources.is_empty
    )
    return found or None


class PlannedContainer(NamedTuple):
    """A container that the spec has, and whether it may be started again after its end.

    `kind` is "init", "container" or "ephemeral".
    """

    kind: str
    name: str
    restarts: bool


def _planned(spec: Spec) -> tuple[PlannedContainer, ...]:
    """Return every container of a spec.

    An init container restarts in a running pod only as a sidecar (restartPolicy Always), an
    ephemeral one never. A policy of the container's own counts more than the pod's, and may
    come with rules (KEP-5307), which are not read here.
    """
    pod_restarts = spec.restart_policy != "Never"
    return (
        *(
            PlannedContainer("init", one.name, one.restart_policy == "Always")
            for one in spec.init_containers or ()
        ),
        *(
            PlannedContainer("container", one.name, pod_restarts or bool(one.restart_policy))
            for one in spec.containers or ()
        ),
        *(
            PlannedContainer("ephemeral", one.name, restarts=False)
            for one in spec.ephemeral_containers or ()
        ),
    )


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """PodSpec. Of its containers only those are kept that ask for CPUs, huge pages or claims.

    `resources` is what the pod's containers have together (KEP-2837).
    `planned` are all of its containers, init first; none where they are not understood.
    `is_guaranteed`: its class is Guaranteed, as Kubernetes computes it from the spec.
    """

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    restart_policy: str = ""
    resources: Requirements | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    resource_claims: tuple[PodClaim, ...] | None = None
    scheduling_group: SchedulingGroup | None = None
    # Derived; no JSON has these keys, and what it might say is overwritten.
    planned: tuple[PlannedContainer, ...] = msgspec.field(name="-planned", default=())
    is_guaranteed: bool = msgspec.field(name="-guaranteed", default=False)

    def __post_init__(self) -> None:
        lasting = (*(self.containers or ()), *(self.init_containers or ()))
        put = msgspec.structs.force_setattr
        put(self, "planned", _planned(self))
        put(self, "is_guaranteed", self._computed(lasting))
        put(self, "ephemeral_containers", None)
        put(self, "containers", _asking(self.containers))
        put(self, "init_containers", _asking(self.init_containers))

    def _computed(self, containers: tuple[Container, ...]) -> bool:
        """Return whether the class is Guaranteed (pkg/apis/core/v1/helper/qos, ComputePodQOS)."""
        if self.resources is not None and (self.resources.requests or self.resources.limits):
            return _is_guaranteed(self.resources.requests or {}, self.resources.limits or {})
        return bool(containers) and all(
            one.resources is not None and one.resources.is_guaranteed for one in containers
        )

    @property
    def only_container(self) -> str:
        """Return the name of the pod's container if it has but one, of whatever kind, else ""."""
        if len(self.planned) != 1 or self.planned[0].kind != "container":
            return ""
        return self.planned[0].name

    @property
    def asking(self) -> tuple[Container, ...]:
        """Return the containers that ask for CPUs, huge pages or claims, init containers first."""
        return (*(self.init_containers or ()), *(self.containers or ()))

    @property
    def sharing_cpus(self) -> tuple[str, ...]:
        """Return the names of the containers that ask for CPUs, and not for whole ones."""
        every = (*(self.containers or ()), *(self.init_containers or ()))
        return tuple(one.name for one in every if one.resources and one.resources.shares_cpus)

    @property
    def hugepages(self) -> tuple[tuple[str, Amounts, Amounts], ...]:
        """Return (name, requests, limits) of the containers that ask for huge pages, init first."""
        return tuple(
            (one.name, one.resources.requests or {}, one.resources.limits or {})
            for one in self.asking
            if one.resources is not None and (one.resources.requests or one.resources.limits)
        )

    def resources_of(self, container_name: str) -> Resources | None:
        """Return what a container asks for, None for nothing that is kept, or without a name."""
        if not container_name:
            return None
        return next((one.resources for one in self.asking if one.name == container_name), None)

    def kind_of(self, container_name: str) -> str:
        """Return "container", "init", or "sidecar", of a container that asks for something."""
        for one in self.init_containers or ():
            if container_name and one.name == container_name:
                return "sidecar" if one.restart_policy == "Always" else "init"
        return "container"
