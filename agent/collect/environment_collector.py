"""Collects the environments of processes, and the devices that environments name."""

from __future__ import annotations

from collections.abc import Awaitable, Hashable
from functools import partial
from typing import cast

from netutil.agent.collect.caller import Caller
from netutil.agent.collect.environment_cache import (
    EnvironmentCache,
    HeldEnvironment,
    read_held,
)
from netutil.agent.collect.environment_reader import EnvironmentReader
from netutil.agent.collect.read_pool import ReadPool, Ready
from netutil.agent.collect.results import (
    Allocated,
)
from netutil.agent.errors import AgentError, NotFound, Reason
from netutil.agent.parsers.environment import (
    Environment,
)
from netutil.agent.parsers.plugin_devices import af_xdp_devices_of_both, devices_of_both

EnvironmentRead = tuple[HeldEnvironment | AgentError | None, Allocated]
"""An environment, why there is none, or None where it is not asked for; and what it names."""


class EnvironmentCollector:
    """Reads environments for callers, once for all that is made of them."""

    def __init__(self, reader: EnvironmentReader, reads: ReadPool) -> None:
        self.reader = reader
        self._reads = reads
        self.held = EnvironmentCache()

    def read(self, caller: Caller, pid: str) -> Ready[HeldEnvironment] | Awaitable[HeldEnvironment]:
        """Return the environment of a process, if it is for the caller."""
        pod_key, key = caller.peer.pod_key, _environment_key(caller, pid)
        read = partial(read_held, held=self.held.get(pod_key, key))
        found = self.reader.read(caller, pid, read)
        if not isinstance(found, Ready):
            return self._awaited(pod_key, key, found)
        self.held.put(pod_key, key, found.value)
        return found

    async def _awaited(
        self, pod_key: str, key: Hashable, read: Awaitable[HeldEnvironment]
    ) -> HeldEnvironment:
        found = await read
        self.held.put(pod_key, key, found)
        return found

    async def read_with_devices(self, caller: Caller, pid: str) -> EnvironmentRead:
        """Return the environment of a process and the devices that it names, read once for both.

        Either may be an error instead; nothing is raised for it. The devices are those of the
        process's own environment and of the one that its container was started with.
        """
        pod_key, key = caller.peer.pod_key, _environment_key(caller, pid)
        start_key = ("start", caller.cgroups.container_id, key[1])
        read = partial(read_held, held=self.held.get(pod_key, key))
        read_start = partial(read_held, held=self.held.get(pod_key, start_key))
        try:
            own, start = await self.reader.read_both(caller, pid, read, read_start)
        except AgentError as error:
            error.with_traceback(None)  # it is kept, and its frames hold the process
            return error, Allocated(error=error)
        self.held.put(pod_key, key, own)
        if isinstance(start, AgentError):
            return own, await self._allocated(caller, key, own, None, start)
        if start is not None:
            self.held.put(pod_key, start_key, start)
        return own, await self._allocated(caller, key, own, start, None)

    async def devices(self, caller: Caller, pid: str) -> Allocated:
        """Return the devices that a process's environment names."""
        _, allocated = await self.read_with_devices(caller, pid)
        return allocated

    async def _allocated(
        self,
        caller: Caller,
        key: Hashable,
        own: HeldEnvironment,
        start: HeldEnvironment | None,
        start_error: AgentError | None,
    ) -> Allocated:
        """Return the devices of two environments, named once while both are held.

        `key` is what `own` is held under.
        """
        names = partial(_named, own, start, start_error)
        size = own.device_characters + (start.device_characters if start else 0)
        if start_error is not None:
            return await self._reads.run_sized(caller.peer.pod_key, names, size)
        if own.is_named_with(start):
            return cast(Allocated, own.named)
        allocated = await self._reads.run_sized(caller.peer.pod_key, names, size)
        if allocated.error is None:
            self.held.keep_named(caller.peer.pod_key, key, own, start, allocated)
        return allocated


def _named(
    own: HeldEnvironment, start: HeldEnvironment | None, start_error: AgentError | None
) -> Allocated:
    started = start.device_variables if start else None
    try:
        devices, others = devices_of_both(own.device_variables, started)
        af_xdp = af_xdp_devices_of_both(own.device_variables, started)
    except AgentError as error:
        return Allocated(error=error.with_traceback(None), start_error=start_error)
    characters = own.device_characters + (start.device_characters if start else 0)
    return Allocated(devices, None, others, start_error, af_xdp, characters)


def _environment_key(caller: Caller, pid: str) -> tuple[int, str]:
    """Return the key of a held environment: the caller, and the process if it is another one.

    What is held is compared with the process before it is used, so the key need not be its only
    one for ever.
    """
    own = caller.peer.process
    return own.pid, "" if own.has_number(pid) else pid


def variables(found: Environment, key: str) -> dict[str, str]:
    """Return all variables, or the one that is asked for. Raises `NotFound` if it is not set."""
    if not key:
        return found.variables
    if key not in found.variables:
        raise NotFound(
            Reason.VARIABLE_NOT_SET,
            f"The process has no environment variable {key[:128]!r}.",
            read="/proc/<pid>/environ",
            advice="Variables that a process sets after its start are not shown there.",
        )
    return {key: found.variables[key]}
