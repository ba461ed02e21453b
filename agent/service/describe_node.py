"""The node itself: its CPUs and its network devices, whoever uses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from netutil.agent.errors import AgentError, unreadable
from netutil.agent.facts.pci import read_network_devices
from netutil.agent.facts.topology import read_topology
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import PodList
from netutil.agent.service.device_answers import cpu_of_node, pci_info
from netutil.agent.service.explain_text import sendable
from netutil.agent.service.reads import ReadPool
from netutil.agent.service.status import part_error
from netutil.v1alpha import node_pb2 as api

T = TypeVar("T")


class DescribingNode:
    """Describes the node. Used on the event loop."""

    def __init__(self, pods: PodDirectory, reads: ReadPool, host_root: str) -> None:
        self._pods = pods
        self._reads = reads
        self._host_root = host_root

    async def describe(self) -> api.DescribeNodeResponse:
        """Return the node. Raises `Unavailable` without a pod list."""
        pod_list = self._pods.last or await self._pods.refresh()  # each names the node alike
        answer = api.DescribeNodeResponse(node_name=_name(pod_list), kernel=os.uname().release)
        topology = partial(read_topology, self._host_root)
        cpus = await self._read(answer, "cpus", topology, "/sys/devices/system/cpu")
        answer.cpus.extend(cpu_of_node(cpu) for cpu in cpus)
        devices = partial(read_network_devices, self._host_root)
        for one in await self._read(answer, "network_devices", devices, "/sys/bus/pci/devices"):
            interfaces = [sendable(name) for name in one.interfaces]
            answer.network_devices.add(pci=pci_info(one.pci), interfaces=interfaces)
        return answer

    async def _read(
        self,
        answer: api.DescribeNodeResponse,
        part: str,
        read: Callable[[], tuple[T, ...]],
        what: str,
    ) -> tuple[T, ...]:
        try:
            return await self._reads.run("", read, what)
        except AgentError as error:
            answer.errors.append(part_error(part, error))
        except OSError as error:
            answer.errors.append(part_error(part, unreadable(error, str(error.filename or what))))
        return ()


def _name(pod_list: PodList) -> str:
    named = (pod.spec.node_name for pod in pod_list.pods if pod.spec.node_name)
    return next(named, os.uname().nodename)
