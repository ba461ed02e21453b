"""Explains the identification of one process, step by step."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from netutil.agent.collect.caller import Caller, CallerResolver, connection_of, parse_pid
from netutil.agent.collect.processes import MAX_DESCRIPTORS, ProcessFacts, read_process
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import (
    AgentError,
    PermissionDenied,
    Reason,
    Unauthenticated,
    Unavailable,
    resource_exhausted,
    unreadable,
)
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import PinnedProcess, process_exited, read_file
from netutil.agent.limits.limits import ConnectionLimits
from netutil.agent.messages.status import code_of
from netutil.agent.parsers.cgroup import (
    CgroupIdentity,
    CgroupLine,
    Placement,
    parse_cgroup_file,
)
from netutil.agent.parsers.cpulist import format_cpu_list
from netutil.agent.parsers.process import Description, describe
from netutil.agent.pods.claims import claims_of
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match
from netutil.v1alpha import node_pb2 as api

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk",
    "T": "stopped",
    "t": "stopped by a debugger",
    "I": "idle",
    "Z": "a zombie",
    "X": "dead",
}
_ENDED = ("Z", "X")
_LANE = "explain"
"""The lane of reads of what a process uses: such a read may wait for the process's memory."""
_MAX_PATHS = 8
_FEW_LINES = 3
ANOTHER_NUMBER = (
    "A container shows its processes under other numbers; the host's are meant here, as"
    " `netutil node pod` lists them."
)


def to_valid_utf8(line: str) -> str:
    """Return a line as UTF-8 can carry it: names of cgroups and processes are any bytes."""
    return line.encode("utf-8", errors="backslashreplace").decode("utf-8")


def describe_missing(pid: int) -> tuple[list[str], str | None]:
    """Return what can be said of a number that no process can be held by, and what to do then.

    None for that where the error itself says it.
    """
    try:
        known = describe(_text(pid, "status"), _text(pid, "stat"))
    except (FileNotFoundError, ProcessLookupError):
        return ["no process of this node has that number, seen from the agent"], ANOTHER_NUMBER
    except (OSError, ValueError):
        return [], None
    if known.thread_of != pid:
        owner = f"process {known.thread_of}, {known.name!r}"
        remedy = f"A thread asks as its process: `netutil node explain {known.thread_of}`."
        return [f"it is a thread of {owner}"], remedy
    if known.state in _ENDED:
        ended = f"it is {_STATES[known.state]}: {known.name!r} has ended"
        waited = f"{ended}, and its parent, pid {known.parent}, has not yet waited for it"
        return [waited], "It asks nothing any more: explain the process that does."
    return [f"it is {known.name!r}"], None


def describe_process(process: PinnedProcess) -> list[str]:
    """Return which process it is. Raises `Unauthenticated` if it has exited."""
    status = process.status()
    known = process.through_running_thread(_description)
    kind = "a kernel thread" if known.is_kernel_thread else "a process"
    state = _STATES.get(known.state, known.state)
    ids = f"uid {status.uids[1]}, gid {status.gids[1]}, child of {known.parent}"
    lines = [f"{known.name!r}, {kind}, {state}, {ids}"]
    if known.number != process.pid:
        lines.append(f"its first thread has ended; thread {known.number} runs and is read instead")
    inside = status.namespace_pids[1:]
    if inside:
        numbers = ", then ".join(map(str, inside))
        lines.append(f"in a PID namespace of its own, where it is {numbers}")
    return lines


def describe_use(process: ProcessFacts) -> str:
    """Return the threads, memory, CPU time, descriptors, CPUs and start of a process."""
    started = datetime.fromtimestamp(process.started_seconds, UTC)
    memory, time_used, count = process.rss_bytes, process.cpu_seconds, process.descriptors
    more = "" if count != MAX_DESCRIPTORS else " or more"
    facts = (
        f"{process.thread_count} thread{'' if process.thread_count == 1 else 's'}",
        None if memory is None else f"{memory / 2**20:.1f} MiB resident",
        None if time_used is None else f"{time_used:.2f} s of CPU time",
        None if count is None else f"{count}{more} descriptor{'' if count == 1 else 's'}",
        None if process.allowed_cpus is None else f"may use CPUs {process.allowed_cpus}",
        None if process.cpu is None else f"last on {process.cpu}",
        f"started {started:%Y-%m-%dT%H:%M:%SZ}",
    )
    return ", ".join(filter(None, facts))


def describe_cgroup_file(text: str) -> list[str]:
    """Return the paths of a cgroup file, and the lines of each.

    Raises as `parse_cgroup_file`.
    """
    lines: dict[str, dict[int, str]] = {}
    for number, line in enumerate(parse_cgroup_file(text), start=1):
        lines.setdefault(line.path, {})[number] = _controllers(line)
    shown = [f"{_where(numbers)}: {path}" for path, numbers in lines.items()]
    if len(shown) > _MAX_PATHS:
        shown[_MAX_PATHS:] = [f"and {len(shown) - _MAX_PATHS} other paths"]
    return shown


def describe_cgroups(cgroups: CgroupIdentity) -> list[str]:
    """Return which segments of the paths are taken for the pod and the container."""
    placement = cgroups.placements[0]
    if cgroups.pod_uid is None:
        ids = dict.fromkeys(one for p in cgroups.placements for one, _ in p.containers)
        return [f"no segment has a pod UID; containers: {', '.join(ids)}"]
    lines = [f"pod segment: {_last(placement.pod_path)}"]
    if cgroups.container_id is None:
        lines.append("no container segment: it is in the pod's own cgroup")
    elif placement.container_path != placement.pod_path:
        lines.append(f"container segment: {_last(_container_path(cgroups.placements))}")
    return lines


def describe_match(match: Match, source: str, now: datetime) -> list[str]:
    """Return what the pod list says."""
    age = max(0.0, (now - match.observed_at).total_seconds())
    remembered = "; the last list lacks the pod, an earlier one had it" * match.is_remembered
    return [
        f"pod {match.pod.full_name}, {_container(match)}",
        f"from {source}, {age:.0f} s old{remembered}",
        *describe_claims(match),
    ]


def describe_claims(match: Match) -> list[str]:
    """Return the ResourceClaims that the container refers to, in one line, none for none."""
    try:
        claims = claims_of(match.pod, match.container_name)
    except AgentError as error:
        return [error.message]
    named = [
        f"{one.pod_claim or one.extended_resource} = {one.claim_name or 'a claim not made yet'}"
        f" ({f'request {one.request}' if one.request else 'all requests'})"
        for one in claims[:_MAX_PATHS]
    ]
    if len(claims) > _MAX_PATHS:
        named.append(f"and {len(claims) - _MAX_PATHS} others")
    return [f"refers to claims {', '.join(named)}"] if named else []


def _container(match: Match) -> str:
    if match.container_name:
        kind = "" if match.container_kind == "container" else f"{match.container_kind} "
        return f"{kind}container {match.container_name}"
    if match.container_id is None:
        return "in none of its containers"
    if match.is_unlisted:
        return "in none of the containers that the list has"
    return "a container that is not reported yet"


def _container_path(placements: Iterable[Placement]) -> str | None:
    return next((one.container_path for one in placements if one.container_path), None)


def _last(path: str | None) -> str:
    return (path or "").rpartition("/")[2]


def _where(lines: Mapping[int, str]) -> str:
    """Return which lines of the file these are; of a few also which hierarchies."""
    many = "" if len(lines) == 1 else "s"
    if len(lines) > _FEW_LINES:
        return f"line{many} {format_cpu_list(lines)}"
    return f"line{many} {', '.join(f'{number} ({name})' for number, name in lines.items())}"


def _controllers(line: CgroupLine) -> str:
    return ",".join(line.controllers) or "unified"


def _description(thread: int) -> Description:
    status, stat = (
        read_file(thread, name).decode("utf-8", errors="replace") for name in ("status", "stat")
    )
    known = describe(status, stat)
    if known.state in _ENDED:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return known


def _text(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")


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
            failure = resource_exhausted(error, str(error.filename or "/proc/<pid>")) or _not_read(
                error
            )
            self.add(name, "stopped", found, failure)
            raise failure from error
        self.add(name, "ok", found)

    def add(
        self, name: str, outcome: str, found: list[str], error: AgentError | None = None
    ) -> None:
        """Note a step."""
        step = api.ExplainStep(name=name, outcome=outcome, found=map(to_valid_utf8, found))
        if error is not None:
            step.found.append(to_valid_utf8(error.message))
            step.code = code_of(error).name
            step.reason = error.reason
            step.read, step.advice = map(self._of_this_process, (error.read, error.advice))
        self.steps.append(step)

    def _of_this_process(self, message: str) -> str:
        """Return the error that any process would get, with the number of this one."""
        return to_valid_utf8(message.replace("/<pid>/", f"/{self.pid}/"))


class Explainer:
    """Explains processes of this node. Used on the event loop."""

    def __init__(
        self,
        tree: CgroupTree,
        callers: CallerResolver,
        pods: PodDirectory,
        connections: ConnectionRegistry,
        limits: ConnectionLimits,
        reads: ReadPool,
    ) -> None:
        self._reads = reads
        self._tree = tree
        self._callers = callers
        self._pods = pods
        self._connections = connections
        self._limits = limits

    async def explain(self, pid: str, seconds: float) -> api.ExplainResponse:
        """Return the steps for a host pid, those after one that stops left out.

        `seconds` is how long to wait for the pod list. Raises `InvalidArgument` for what is no pid.
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
            found.extend(describe_process(process))
            found.append(await self._describe_use(process.pid))
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

    async def _describe_use(self, pid: int) -> str:
        """Return what a process uses, read by its number: its caller shows that it still runs."""
        read = f"/proc/{pid}"
        try:
            found = await self._reads.run(_LANE, partial(read_process, pid), read)
        except AgentError as error:
            return f"what it uses is not known: {error.message}"
        except OSError as error:
            return f"what it uses is not known: {unreadable(error, read).message}"
        if found is None:
            raise process_exited(pid)
        return describe_use(found)

    async def _look_up(
        self, walk: _Walk, process: PinnedProcess, cgroups: CgroupIdentity, until: float
    ) -> None:
        found: list[str] = []
        try:
            with walk.step("pod list") as found:
                walk.match = await self._callers.match(
                    cgroups.pod_uid or "", process, cgroups, _left(until)
                )
                found.extend(describe_match(walk.match, self._pods.describe(), datetime.now(UTC)))
            if not walk.match.container_name:
                walk.steps.pop()
                found.append("All is answered but what needs a container's name:")
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
    except Unauthenticated as error:
        said, advice = describe_missing(pid)
        found += said
        if advice is None:
            raise
        raise Unauthenticated(
            error.reason, error.message, read=error.read, advice=advice
        ) from error
    found.append("it runs, and is held by a pidfd")
    return process


def _named(process: PinnedProcess, tree: CgroupTree, found: list[str]) -> CgroupIdentity:
    content = process.cgroup_text()
    found += describe_cgroup_file(content)
    try:
        cgroups = tree.identify(content)
    except PermissionDenied as error:
        advice = f"{error.advice} {ANOTHER_NUMBER}"
        raise PermissionDenied(
            error.reason, error.message, read=error.read, advice=advice
        ) from error
    process.ensure_alive()
    found += describe_cgroups(cgroups)
    return cgroups


def _not_read(error: OSError) -> Unauthenticated:
    return Unauthenticated(
        Reason.PEER_NOT_PINNED,
        f"The agent may not read of this process what it needs: {error.strerror}.",
        read=str(error.filename or "/proc/<pid>"),
        advice="`netutil node doctor` says which right the agent lacks.",
    )
