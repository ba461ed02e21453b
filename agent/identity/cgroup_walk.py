"""Walks through cgroup directories of the host: processes and containers in them. All block."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from netutil.agent.errors import (
    is_resource_exhaustion,
)
from netutil.agent.identity.hierarchy import Hierarchy
from netutil.agent.parsers.pod_cgroups import (
    joined_parents,
    kubepods_directories,
)

_MAX_DEPTH = 12
_LINKS_OF_A_LEAF = 2
"""st_nlink of a directory without directories, as kernfs counts it (fs/kernfs/dir.c)."""


def cgroups_below(
    directory: str,
    *,
    breadth_first: bool = False,
    onerror: Callable[[OSError], None] = lambda _: None,
) -> Iterator[str]:
    """Yield a directory and all below it, each before those in it.

    os.walk of Python 3.11 calls itself for each level, and a workload that may make cgroups nests
    more of them than Python allows calls. `onerror` gets the error of what cannot be listed, which
    is then left out.
    """
    waiting = deque([directory])
    while waiting:
        folder = waiting.popleft() if breadth_first else waiting.pop()
        try:
            with os.scandir(folder) as entries:
                below = [one.path for one in entries if one.is_dir(follow_symlinks=False)]
        except OSError as error:
            onerror(error)
            continue
        yield folder
        waiting.extend(below if breadth_first else reversed(below))


def processes_below(directory: str) -> Iterator[int]:
    """Yield the host pids in a cgroup and all below it (cgroup.procs), as they are now.

    Raises OSError for a shortage: a process that was not looked for is not missing.
    """
    for folder in cgroups_below(directory, onerror=only_shortage):
        try:
            text = Path(folder, "cgroup.procs").read_text(encoding="ascii")
        except OSError as error:
            # The cgroup went away meanwhile, or is a threaded one of cgroup v2,
            # whose processes the nearest domain above it lists.
            only_shortage(error)
            continue
        for line in text.split():
            yield int(line)


def containers_below(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the directory of every container in a hierarchy whose path has a pod UID.

    For the operators' view: names are taken as they are. Blocks: not for the loop. Raises
    OSError for a shortage.
    """
    found: dict[str, str] = {}
    for path in kubepods_directories(hierarchy.places):
        top = hierarchy.resolve(path)
        if top is not None:
            _find_containers(hierarchy, top, found)
    for path in joined_parents(hierarchy.places):
        parent = hierarchy.resolve(path or "/")
        if parent is not None:
            _find_joined(hierarchy, parent, found)
    return found


def pod_directories_below(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the directory of every pod in a hierarchy that has one, by normalised UID.

    Blocks and raises as `containers_below`.
    """
    found: dict[str, str] = {}
    for path in kubepods_directories(hierarchy.places):
        top = hierarchy.resolve(path)
        if top is None:
            continue
        for folder, below, _ in os.walk(top, onerror=only_shortage):
            pod_uid = hierarchy.pod_at(folder)
            if pod_uid is not None:
                found.setdefault(pod_uid, folder)
                below.clear()
            elif folder.count("/") - top.count("/") >= _MAX_DEPTH:
                below.clear()
    return found


def names_in(directory: str, prefix: str) -> list[str]:
    """Return the sorted names in a directory that begin so. Raises OSError for a shortage."""
    try:
        return sorted(name for name in os.listdir(directory) if name.startswith(prefix))
    except OSError as error:
        only_shortage(error)
        return []


def _find_containers(hierarchy: Hierarchy, top: str, found: dict[str, str]) -> None:
    for folder, below, _ in os.walk(top, onerror=only_shortage):
        container_id = hierarchy.container_at(folder)
        if container_id:
            found.setdefault(container_id, folder)
            below.clear()
        elif folder.count("/") - top.count("/") >= _MAX_DEPTH:
            below.clear()


def _find_joined(hierarchy: Hierarchy, parent: str, found: dict[str, str]) -> None:
    """Find containers whose segment has the pod's slice too."""
    try:
        names = os.listdir(parent)
    except OSError as error:
        only_shortage(error)
        return
    for name in names:
        container_id = hierarchy.container_at(f"{parent}/{name}") if ":" in name else None
        if container_id:
            found.setdefault(container_id, f"{parent}/{name}")


def is_populated(directory: str, version: int) -> bool:
    """Return whether a cgroup has processes, or may have some below it.

    Raises OSError for a shortage.
    """
    try:
        if version == 1:
            members = Path(directory, "cgroup.procs").read_bytes()
            # Its cgroups are not walked through: a workload makes as many as it likes.
            return bool(members) or os.stat(directory).st_nlink > _LINKS_OF_A_LEAF
        return "populated 1" in Path(directory, "cgroup.events").read_text(encoding="ascii")
    except OSError as error:
        only_shortage(error)
        return False


def only_shortage(error: OSError) -> None:
    """Raise an error that is a shortage of the agent; others say that a cgroup was removed."""
    if is_resource_exhaustion(error):
        raise error
