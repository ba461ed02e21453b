"""What the steps of an explanation found, as lines for a person. No command line, no value."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from netutil.agent.identity.process import PinnedProcess, read_file
from netutil.agent.parsers.cgroup import (
    CgroupIdentity,
    CgroupLine,
    Placement,
    parse_cgroup_file,
)
from netutil.agent.parsers.cpulist import format_cpu_list
from netutil.agent.parsers.process import Description, describe
from netutil.agent.pods.index import Match

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
_MOST_PATHS = 8
_FEW_LINES = 3
ANOTHER_NUMBER = (
    "A container shows its processes under other numbers; the host's are meant here, as"
    " `netutil node pod` lists them."
)


def sendable(line: str) -> str:
    """Return a line as UTF-8 can carry it: names of cgroups and processes are any bytes."""
    return line.encode("utf-8", errors="backslashreplace").decode("utf-8")


def of_none(pid: int) -> tuple[list[str], str | None]:
    """Return what can be said of a number that no process can be held by, and what to do then.

    None for that where the error itself says it.
    """
    try:
        known = describe(_text(pid, "status"), _text(pid, "stat"))
    except (FileNotFoundError, ProcessLookupError):
        return ["no process of this node bears that number, seen from the agent"], ANOTHER_NUMBER
    except (OSError, ValueError):
        return [], None
    if known.thread_of != pid:
        owner = f"process {known.thread_of}, {known.name!r}"
        mend = f"A thread asks as its process: `netutil node explain {known.thread_of}`."
        return [f"it is a thread of {owner}"], mend
    if known.state in _ENDED:
        ended = f"it is {_STATES[known.state]}: {known.name!r} has ended"
        waited = f"{ended}, and its parent, pid {known.parent}, has not yet waited for it"
        return [waited], "It asks nothing any more: explain the process that does."
    return [f"it is {known.name!r}"], None


def of_process(process: PinnedProcess) -> list[str]:
    """Return which process it is. Raises `Unidentified` if it is gone."""
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


def of_cgroup_file(text: str) -> list[str]:
    """Return the paths of a cgroup file, and on which lines each stands.

    Raises as `parse_cgroup_file`.
    """
    lines: dict[str, dict[int, str]] = {}
    for number, line in enumerate(parse_cgroup_file(text), start=1):
        lines.setdefault(line.path, {})[number] = _controllers(line)
    shown = [f"{_where(numbers)}: {path}" for path, numbers in lines.items()]
    if len(shown) > _MOST_PATHS:
        shown[_MOST_PATHS:] = [f"and {len(shown) - _MOST_PATHS} other paths"]
    return shown


def of_names(cgroups: CgroupIdentity) -> list[str]:
    """Return which segments of the paths are taken for the pod and the container."""
    placement = cgroups.placements[0]
    if cgroups.pod_uid is None:
        ids = dict.fromkeys(one for p in cgroups.placements for one, _ in p.containers)
        return [f"no segment bears a pod UID; containers: {', '.join(ids)}"]
    lines = [f"pod segment: {_last(placement.pod_path)}"]
    if cgroups.container_id is None:
        lines.append("no container segment: it is in the pod's own cgroup")
    elif placement.container_path != placement.pod_path:
        lines.append(f"container segment: {_last(_container_path(cgroups.placements))}")
    return lines


def of_match(match: Match, source: str, now: datetime) -> list[str]:
    """Return what the pod list says."""
    age = max(0.0, (now - match.observed_at).total_seconds())
    remembered = "; the last list lacks the pod, an earlier one had it" * match.is_remembered
    return [
        f"pod {match.pod.full_name}, {_container(match)}",
        f"from {source}, {age:.0f} s old{remembered}",
    ]


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
