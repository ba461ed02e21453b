"""The pod list's entries of the processes that requests name."""

from __future__ import annotations

from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.errors import AgentError
from netutil.agent.pods.index import Match

Listed = tuple[Match | None, AgentError | None]
"""The pod list's entry for a process, or why there is none."""


class PodLookup:
    """Looks up processes of callers' pods. `pid` is as in a request: "" is the caller itself."""

    def __init__(self, callers: CallerResolver) -> None:
        self._callers = callers

    async def match(self, caller: Caller, pid: str, wait_seconds: float) -> tuple[Match, str]:
        """Return the pod list's entry of a process's container, and the container's ID."""
        if not pid:
            return caller.require_match(), caller.cgroups.container_id or ""
        process, cgroups = await self._callers.process(caller, pid)
        try:
            match = await self._callers.match(caller.peer.pod_key, process, cgroups, wait_seconds)
        finally:
            process.close()
        return match, cgroups.container_id or ""

    async def listed(self, caller: Caller, pid: str) -> Listed:
        """Return the pod list's entry for a process, or why there is none now."""
        try:
            match, _ = await self.match(caller, pid, 0)
        except AgentError as error:
            return None, error.with_traceback(None)
        return match, None

    async def ensure_in_pod(self, caller: Caller, pid: str) -> None:
        """Raise what `CallerResolver.process` raises of a process that is not of the pod."""
        if pid:
            process, _ = await self._callers.process(caller, pid)
            process.close()
