"""Encoded answers about one caller: one method for each kind of fact.

A held answer is returned at once, any other as a coroutine. `pid` is as in a request: "" is the
calling process.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from netutil.agent.collect.caller import Caller
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.collect.environment_collector import variables
from netutil.agent.collect.results import Allocated
from netutil.agent.errors import AgentError
from netutil.agent.facts.network import network_characters
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages import convert_devices, encode
from netutil.agent.messages.encode import Answer
from netutil.agent.messages.encode_interfaces import INTERFACES
from netutil.agent.messages.status import part_error


class Answers:
    """Encodes what a collector returns. Used on the event loop."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def cpu(self, caller: Caller, pid: str) -> Answer:
        """Return the CPUs of a process."""
        return encode.cpus(await self._collector.cpus.of_process(caller, pid))

    def cpu_with_topology(
        self, caller: Caller, pid: str, seconds: float, each_cpu: bool = True
    ) -> Answer | Awaitable[Answer]:
        """Return the CPUs of a process, the exclusive CPUs and, for `each_cpu`, the topology."""
        known = None if pid else self._known_cpu(caller, each_cpu)
        return known or self._read_cpu(caller, pid, seconds, each_cpu)

    def _known_cpu(self, caller: Caller, each_cpu: bool) -> Answer | None:
        resources = self._collector.devices.known_resources(caller)
        if resources is None:
            return None
        found = self._collector.cpus.own(caller, partition=True)
        cpus = self._collector.cpus.known_topology(found.facts.cpuset) if each_cpu else ()
        if cpus is None:
            return None
        return encode.cpus_with_topology(found, cpus, resources.cpu_ids)

    async def _read_cpu(self, caller: Caller, pid: str, seconds: float, each_cpu: bool) -> Answer:
        found = await self._collector.cpus.of_process(caller, pid, partition=True)
        response = convert_devices.cpus(found)
        exclusive = None
        try:
            exclusive = (await self._collector.devices.resources(caller, pid, seconds)).cpu_ids
        except AgentError as error:
            response.resources_error.CopyFrom(part_error("exclusive_cpus", error))
        cpus = await self._collector.cpus.topology(caller, response.cpuset) if each_cpu else ()
        convert_devices.add_topology(response, cpus, exclusive)
        return response

    def env(
        self, caller: Caller, found: HeldEnvironment | AgentError, key: str = ""
    ) -> Answer | Awaitable[Answer]:
        """Return all variables of an environment that was read for "", else the variable `key`.

        Raises the error of the read.
        """
        if isinstance(found, AgentError):
            raise found
        return (None if key else found.answer) or self._variables(caller, found, key)

    async def _variables(self, caller: Caller, found: HeldEnvironment, key: str) -> EncodedMessage:
        wanted = variables(found.environment, key)
        write = partial(encode.environment, found.environment, wanted)
        # A variable alone may have megabytes.
        size = len(wanted) if found.may_be_held else None
        # Calls that shared the read share its answer too, which may have a megabyte.
        share = None if key else (encode.environment, id(found))
        answer = await self._collector.reads.run_sized(caller.peer.pod_key, write, size, share)
        if not key:
            found.answer = answer
        return answer

    def network(self, caller: Caller, pid: str) -> Answer | Awaitable[Answer]:
        """Return the networks of the pod."""
        known = None if pid else encode.known_network(caller.require_match())
        return known or self.read_network(caller, pid, "")

    async def read_network(self, caller: Caller, pid: str, interface: str) -> Answer:
        """Return the networks of the pod, or one of them, without the kept answer."""
        networks = await self._collector.networks.of_process(caller, pid, interface)
        match = caller.require_match()
        write = partial(encode.network, networks, match)
        size = network_characters(match.pod.metadata.annotations or {})
        answer = await self._collector.reads.run_sized(caller.peer.pod_key, write, size)
        if not interface:
            encode.keep_network(match, answer)
        return answer

    def pod(self, caller: Caller, pid: str, seconds: float) -> Answer | Awaitable[Answer]:
        """Return the pod and the container of a process."""
        if pid:
            return self.read_pod(caller, pid, seconds)
        return encode.pod(caller.require_match(), caller.cgroups.container_id or "")

    async def read_pod(self, caller: Caller, pid: str, seconds: float) -> Answer:
        """Return the pod and the container of another process."""
        match, container_id = await self._collector.lookup.match(caller, pid, seconds)
        return encode.pod(match, container_id)

    def resources(
        self, caller: Caller, pid: str, seconds: float, agent_device: bool = False
    ) -> Answer | Awaitable[Answer]:
        """Return what the kubelet allocated to the container of a process.

        `agent_device` says whether the agent's own device plugin is listed too.
        """
        found = None if pid else self._collector.devices.known_resources(caller)
        given = self._collector.devices.known_devices(caller, found) if found is not None else None
        if found is None or given is None:
            return self._read_resources(caller, pid, seconds, agent_device)
        return encode.resources(found.with_agent_devices if agent_device else found, given)

    async def _read_resources(
        self, caller: Caller, pid: str, seconds: float, agent_device: bool
    ) -> EncodedMessage:
        found = await self._collector.devices.resources(caller, pid, seconds)
        given = await self._collector.devices.given_devices(caller, pid, found)
        return encode.resources(found.with_agent_devices if agent_device else found, given)

    def interfaces(
        self, caller: Caller, pid: str, allocated: Allocated
    ) -> Answer | Awaitable[Answer]:
        """Return all interfaces; `allocated` is what was read before."""
        interfaces = self._collector.interfaces
        known = None if pid else interfaces.known_answer(caller, INTERFACES, allocated)
        return known or interfaces.answer_of(caller, pid, "", INTERFACES, allocated)

    def hugepages(self, caller: Caller, pid: str) -> Answer | Awaitable[Answer]:
        """Return the huge pages of the pod, the container and the node."""
        found = None if pid else self._collector.hugepages.own(caller)
        return self._read_hugepages(caller, pid) if found is None else encode.hugepages(found)

    async def _read_hugepages(self, caller: Caller, pid: str) -> Answer:
        return encode.hugepages(await self._collector.hugepages.of_process(caller, pid))
