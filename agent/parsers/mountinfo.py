"""The cgroup mounts in the text of /proc/<pid>/mountinfo. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """One mounted cgroup hierarchy.

    `options` are the file system's own: for cgroup v1 the controllers and
    `name=…` are among them. `root` is the cgroup that is mounted, as the
    reader's cgroup namespace shows it: "/" or, above the namespace's root,
    "/..", "/../..", ….
    """

    version: int
    options: frozenset[str]
    mount_point: str
    root: str


def parse_cgroup_mounts(text: str) -> tuple[CgroupMount, ...]:
    """Return the cgroup mounts, in the file's order. Other lines are passed over."""
    mounts = []
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        mount, file_system = left.split(" "), right.split(" ")
        if not dash or len(mount) < 6 or len(file_system) < 3:  # noqa: PLR2004 - the columns
            continue
        if file_system[0] not in ("cgroup", "cgroup2"):
            continue
        mounts.append(
            CgroupMount(
                version=2 if file_system[0] == "cgroup2" else 1,
                options=frozenset(file_system[2].split(",")),
                mount_point=_unescape(mount[4]),
                root=_unescape(mount[3]),
            )
        )
    return tuple(mounts)


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
