"""Why a process of the node is answered, or refused: its identity, step by step.

Each step calls the function that identifies callers, and the last one all of
them as one, as connections and calls do: there is no second opinion here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import AgentError, Denied, Reason, Unavailable, Unidentified, shortage
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.pinning import pin_pid
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.limits.limits import ConnectionLimits
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match
from netutil.agent.service import explain_text as text
from netutil.agent.service.as_caller import connection_of
from netutil.agent.service.caller import Caller, Callers, parse_pid
from netutil.agent.service.status import code_of
from netutil.agent.service.unnamed import unnamed
from netutil.v1alpha import node_pb2 as api


@dataclass(slots=True)
class _Walk:
    """The steps so far, and what is known by them."""

    pid: int
    steps: list[api.ExplainStep] = field(default_factory=list)
    match: Match | None = None
    answered: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Take a step: what it finds goes into the list that is given."""
        found: list[str] = []
        try:
            yield found
        except AgentError as error:
            self.add(name, "stopped", found, error)
            raise
        except OSError as error:
            told = shortage(error, str(error.filename or "/proc/<pid>")) or _not_read(error)
            self.add(name, "stopped", found, told)
            raise told from error
        self.add(name, "ok", found)

    def add(
        self, name: str, outcome: str, found: list[str], error: AgentError | None = None
    ) -> None:
        """Note a step."""
        step = api.ExplainStep(name=name, outcome=outcome, found=map(text.sendable, found))
        if error is not None:
            step.found.append(text.sendable(error.sentence))
            step.code = code_of(error).name
            step.reason = error.reason
            step.read, step.advice = map(self._of_this_process, (error.read, error.advice))
        self.steps.append(step)

    def _of_this_process(self, told: str) -> str:
        """Return what any process would be told, with the number of this one."""
        return text.sendable(told.replace("/<pid>/", f"/{self.pid}/"))


class Explaining:
    """Explains processes of this node. Used on the event loop."""

    def __init__(
        self,
        tree: CgroupTree,
        callers: Callers,
        pods: PodDirectory,
        connections: ConnectionRegistry,
        limits: ConnectionLimits,
    ) -> None:
        self._tree = tree
        self._callers = callers
        self._pods = pods
        self._connections = connections
        self._limits = limits

    async def explain(self, pid: str, seconds: float) -> api.ExplainResponse:
        """Return the steps for a host pid, those after one that stops left out.

        `seconds` is how long to wait for the pod list. Raises `Invalid` for what is no pid.
        """
        walk = _Walk(parse_pid(pid))
        try:
            with walk.step("pid") as found:
                process = _held(walk.pid, found)
            try:
                await self._walk(walk, process, time.monotonic() + seconds)
            finally:
                process.close()
        except AgentError:
            pass  # it is the last step
        match = walk.match
        return api.ExplainResponse(
            pid=walk.pid,
            steps=walk.steps,
            answered=walk.answered,
            pod=match.pod.full_name if match else "",
            container=match.container_name if match else "",
        )

    async def _walk(self, walk: _Walk, process: PinnedProcess, until: float) -> None:
        with walk.step("process") as found:
            found.extend(text.of_process(process))
            process.ensure_alive()
        with walk.step("cgroup") as found:
            cgroups = _named(process, self._tree, found)
        if cgroups.pod_uid is None:
            with walk.step("container") as found:
                cgroups = await self._callers.choose(cgroups, _left(until))
                found.append(f"of these, the pod list knows container {cgroups.container_id}")
        with walk.step("ownership") as found:
            self._tree.ensure_made_by_root(cgroups)
            others = len(cgroups.placements) - 1
            elsewhere = f"; so it is in {others} other hierarchies" if others else ""
            directory = self._tree.scope_directory(cgroups)
            found.append(f"root made {directory} and all above it{elsewhere}")
        await self._look_up(walk, process, cgroups, until)
        with walk.step("answer") as found:
            caller = await self._identify(process, until)
            walk.match = walk.match or caller.match
            held = self._connections.count(caller.peer.pod_key)
            most = self._limits.per_pod
            found.append(f"its calls are answered; its pod holds {held} of {most} connections")
        walk.answered = True

    async def _look_up(
        self, walk: _Walk, process: PinnedProcess, cgroups: CgroupIdentity, until: float
    ) -> None:
        found: list[str] = []
        try:
            with walk.step("pod list") as found:
                walk.match = await self._callers.match(
                    cgroups.pod_uid or "", process, cgroups, _left(until)
                )
                told = text.of_match(walk.match, self._pods.describe(), datetime.now(UTC))
                found.extend(told)
            if not walk.match.container_name:
                walk.steps.pop()
                found.append("All is answered but what is told by a container's name:")
                walk.add("pod list", "degraded", found, unnamed(walk.match, str(walk.pid)))
        except Unavailable as error:
            if cgroups.pod_uid is None:
                raise
            # As the services do: what the kernel proves is answered without a pod list.
            walk.steps.pop()
            found = ["CPUs and environment are answered all the same, the rest is not:"]
            walk.add("pod list", "degraded", found, error)

    async def _identify(self, process: PinnedProcess, until: float) -> Caller:
        """Return the caller as a connection and its calls would find it, all at once."""
        connection = connection_of(process, self._tree)
        held = self._connections.count(connection.key)
        error = self._limits.exceeded(held, len(self._connections))
        if error is not None:
            raise error
        return await self._callers.identify(connection, _left(until))


def _left(until: float) -> float:
    """Return the seconds that are left of the whole walk's time."""
    return max(0.0, until - time.monotonic())


def _held(pid: int, found: list[str]) -> PinnedProcess:
    try:
        process = pin_pid(pid)
    except Unidentified as error:
        said, advice = text.of_none(pid)
        found += said
        if advice is None:
            raise
        raise Unidentified(error.reason, error.sentence, read=error.read, advice=advice) from error
    found.append("it runs, and is held by a pidfd")
    return process


def _named(process: PinnedProcess, tree: CgroupTree, found: list[str]) -> CgroupIdentity:
    content = process.cgroup_text()
    found += text.of_cgroup_file(content)
    try:
        cgroups = tree.identify(content)
    except Denied as error:
        advice = f"{error.advice} {text.ANOTHER_NUMBER}"
        raise Denied(error.reason, error.sentence, read=error.read, advice=advice) from error
    process.ensure_alive()
    found += text.of_names(cgroups)
    return cgroups


def _not_read(error: OSError) -> Unidentified:
    return Unidentified(
        Reason.PEER_NOT_PINNED,
        f"The agent may not read of this process what it needs: {error.strerror}.",
        read=str(error.filename or "/proc/<pid>"),
        advice="`netutil node doctor` says which right the agent lacks.",
    )
