"""What a pod and its containers ask for, and what the kubelet says that it granted. Pure."""

from __future__ import annotations

from dataclasses import replace

from netutil.agent.facts.hugepages import (
    Both,
    ContainerHugepages,
    PodHugepages,
    asked,
    asked_together,
)
from netutil.agent.parsers.quantity import as_text, parse_cores
from netutil.agent.pods.model import Pod
from netutil.agent.pods.spec import Amounts, Requirements
from netutil.agent.service.gathered import CpuAmounts, ResourceAmount

_NONE = Requirements()


def container_cpus(pod: Pod, container_name: str) -> CpuAmounts | None:
    """Return the CPUs of a container, None if neither spec nor status sets any.

    Raises `Inconsistent` for what is no amount of CPUs.
    """
    wanted, granted = pod.spec.resources_of(container_name), pod.granted(container_name)
    return _cpus(
        f"resources of container {container_name} of pod {pod.full_name}",
        (
            wanted and wanted.cpu_request,
            wanted and wanted.cpu_limit,
            granted and granted.cpu_request,
            granted and granted.cpu_limit,
        ),
    )


def pod_cpus(pod: Pod) -> CpuAmounts | None:
    """Return the CPUs of a pod as a whole. Otherwise as `container_cpus`."""
    (requests, limits), granted = _wanted(pod), _granted(pod) or ({}, {})
    return _cpus(
        f"resources of pod {pod.full_name}",
        tuple(side.get("cpu") for side in (requests, limits, *granted)),
    )


def _cpus(where: str, amounts: tuple[object, ...]) -> CpuAmounts | None:
    if all(one is None for one in amounts):
        return None
    read = f"{where}: cpu"
    return CpuAmounts(*(None if one is None else parse_cores(one, read=read) for one in amounts))


def container_hugepages(pod: Pod) -> tuple[ContainerHugepages, ...]:
    """Return the huge pages of the pod's containers. Raises `Inconsistent`."""
    wanted = pod.spec.hugepages
    granted = {name: pod.granted(name) for name, _, _ in wanted}
    found = asked(
        wanted,
        pod=pod.full_name,
        granted={
            name: (one.requests or {}, one.limits or {})
            for name, one in granted.items()
            if one is not None
        },
    )
    return tuple(replace(one, kind=pod.spec.kind_of(one.container_name)) for one in found)


def pod_hugepages(pod: Pod) -> tuple[PodHugepages, ...]:
    """Return the huge pages of the pod as a whole. Raises `Inconsistent`."""
    return asked_together(_wanted(pod), _granted(pod), pod=pod.full_name)


def pod_resources(pod: Pod) -> tuple[ResourceAmount, ...]:
    """Return every resource of the pod as a whole, as written, by name."""
    sides = (*_wanted(pod), *(_granted(pod) or ({}, {})))
    names = sorted({name for side in sides for name in side})
    return tuple(ResourceAmount(name, *(_text(side.get(name)) for side in sides)) for name in names)


def _text(amount: object) -> str:
    return "" if amount is None else as_text(amount)


def _wanted(pod: Pod) -> Both:
    wanted = pod.spec.resources or _NONE
    return wanted.requests or {}, wanted.limits or {}


def _granted(pod: Pod) -> Both | None:
    """Return requests and limits, None where the status does not say."""
    status = pod.status
    if status.allocated_resources is None and status.resources is None:
        return None
    in_force = status.resources or _NONE
    requests: Amounts = {**(in_force.requests or {}), **(status.allocated_resources or {})}
    return requests, in_force.limits or {}
