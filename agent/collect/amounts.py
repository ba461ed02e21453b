"""CPUs, memory and huge pages that a pod requests, and what the kubelet granted. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from netutil.agent.collect.pod_networks import (
    ensure_pod_resources_understood,
    ensure_resources_understood,
)
from netutil.agent.collect.results import AskedCpus, AskedHugepages, CpuAmounts, ResourceAmount
from netutil.agent.errors import AgentError
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

T = TypeVar("T")
_NONE = Requirements()


def container_cpus(pod: Pod, container_name: str) -> CpuAmounts | None:
    """Return the CPUs of a container, None if neither spec nor status sets any.

    None too for the name "", which is no container's. Raises `FailedPrecondition` for what is no
    amount of CPUs.
    """
    if not container_name:
        return None
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


def asked_cpus(pod: Pod, container_name: str) -> AskedCpus:
    """Return the CPUs of a container and of its pod, each as far as it is known."""
    container, error = _or_error(lambda: _understood_cpus(pod, container_name))
    whole, pod_error = _or_error(lambda: _understood_pod_cpus(pod))
    return AskedCpus(container, whole, error or pod_error)


def asked_hugepages(pod: Pod) -> AskedHugepages:
    """Return the huge pages of each container and of the pod, each as far as it is known."""
    _, error = _or_error(lambda: ensure_resources_understood(pod))
    found: list[ContainerHugepages] = []
    for one in pod.spec.hugepages:
        rows, problem = _or_error(partial(_understood_hugepages, pod, one))
        found += rows or ()
        error = error or problem
    whole, pod_error = _or_error(lambda: _understood_pod_hugepages(pod))
    return AskedHugepages(tuple(found), whole or (), error or pod_error)


def _or_error(read: Callable[[], T]) -> tuple[T | None, AgentError | None]:
    try:
        return read(), None
    except AgentError as error:
        return None, error.with_traceback(None)  # it is kept, and its frames hold the pod


def _understood_cpus(pod: Pod, container_name: str) -> CpuAmounts | None:
    ensure_resources_understood(pod, container_name)
    return container_cpus(pod, container_name)


def _understood_pod_cpus(pod: Pod) -> CpuAmounts | None:
    ensure_pod_resources_understood(pod)
    return pod_cpus(pod)


def _understood_hugepages(
    pod: Pod, wanted: tuple[str, Amounts, Amounts]
) -> tuple[ContainerHugepages, ...]:
    ensure_resources_understood(pod, wanted[0])
    return _hugepages_of(pod, wanted)


def _understood_pod_hugepages(pod: Pod) -> tuple[PodHugepages, ...]:
    ensure_pod_resources_understood(pod)
    return pod_hugepages(pod)


def container_hugepages(pod: Pod) -> tuple[ContainerHugepages, ...]:
    """Return the huge pages of the pod's containers. Raises `FailedPrecondition`."""
    return tuple(found for one in pod.spec.hugepages for found in _hugepages_of(pod, one))


def _hugepages_of(pod: Pod, wanted: tuple[str, Amounts, Amounts]) -> tuple[ContainerHugepages, ...]:
    name = wanted[0]
    granted = pod.granted(name)
    found = asked(
        (wanted,),
        pod=pod.full_name,
        granted={name: (granted.requests or {}, granted.limits or {})} if granted else None,
    )
    return tuple(msgspec.structs.replace(one, kind=pod.spec.kind_of(name)) for one in found)


def pod_hugepages(pod: Pod) -> tuple[PodHugepages, ...]:
    """Return the huge pages of the pod as a whole. Raises `FailedPrecondition`."""
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
