"""The part of a pod's spec that the agent uses (core/v1, PodSpec)."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from netutil.agent.parsers.quantity import is_whole

HUGEPAGES = "hugepages-"
"""A resource name's beginning; the page size follows, "hugepages-2Mi"."""


def _huge_pages(amounts: dict[str, Any] | None) -> dict[str, Any] | None:
    found = {name: amount for name, amount in (amounts or {}).items() if name.startswith(HUGEPAGES)}
    return found or None


def _with_huge_pages(containers: tuple[Container, ...] | None) -> tuple[Container, ...] | None:
    found = tuple(
        one
        for one in containers or ()
        if one.resources is not None and (one.resources.requests or one.resources.limits)
    )
    return found or None


class Resources(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ResourceRequirements: of requests and limits only huge pages are kept, as written.

    A list of 250 pods would else hold a thousand dictionaries that nobody reads. A quantity may be
    a string or, by hand, a number; it is parsed where it is used. `shares_cpus`: it asks for
    CPUs, and not for a whole number of them.
    """

    requests: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    shares_cpus: bool = msgspec.field(name="-", default=False)

    def __post_init__(self) -> None:
        cpus = (self.requests or {}).get("cpu", (self.limits or {}).get("cpu"))
        shares = cpus is not None and not is_whole(cpus)
        msgspec.structs.force_setattr(self, "shares_cpus", shares)
        msgspec.structs.force_setattr(self, "requests", _huge_pages(self.requests))
        msgspec.structs.force_setattr(self, "limits", _huge_pages(self.limits))


class Container(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Container. `restart_policy` may be anything: one that is no policy takes no pod away."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: Any = msgspec.field(name="restartPolicy", default=None)


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
    """PodSpec. Of its containers only those are kept that ask for huge pages.

    `planned` are all of its containers, init first.
    `sharing_cpus` are the names of the containers that ask for CPUs in parts.
    """

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    restart_policy: Any = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    # Derived; no JSON has these keys, and what it might say is overwritten.
    planned: tuple[PlannedContainer, ...] = msgspec.field(name="-planned", default=())
    sharing_cpus: tuple[str, ...] = msgspec.field(name="-sharing", default=())

    def __post_init__(self) -> None:
        every = (
            *(self.containers or ()),
            *(self.init_containers or ()),
            *(self.ephemeral_containers or ()),
        )
        sharing = tuple(one.name for one in every if one.resources and one.resources.shares_cpus)
        msgspec.structs.force_setattr(self, "planned", _planned(self))
        msgspec.structs.force_setattr(self, "sharing_cpus", sharing)
        msgspec.structs.force_setattr(self, "ephemeral_containers", None)
        msgspec.structs.force_setattr(self, "containers", _with_huge_pages(self.containers))
        msgspec.structs.force_setattr(
            self, "init_containers", _with_huge_pages(self.init_containers)
        )

    @property
    def only_container(self) -> str:
        """Return the name of the pod's container if it has but one, of whatever kind, else ""."""
        if len(self.planned) != 1 or self.planned[0].kind != "container":
            return ""
        return self.planned[0].name

    @property
    def hugepages(self) -> tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]:
        """Return (name, requests, limits) of the containers that ask for huge pages, init first."""
        return tuple(
            (one.name, one.resources.requests or {}, one.resources.limits or {})
            for one in (*(self.init_containers or ()), *(self.containers or ()))
            if one.resources is not None
        )
