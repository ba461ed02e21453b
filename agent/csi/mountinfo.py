"""Mounts of this process: /proc/self/mountinfo. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from netutil.agent.csi.errors import VolumeFailed

PATH = "/proc/self/mountinfo"
MAX_BYTES = 64 * 2**20
"""A node has some hundred mounts, of some 200 bytes each. The kernel allows 100 000 by default
(fs.mount-max)."""

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_MIN_COLUMNS = 6  # mount ID, parent ID, device, root, mount point, options
_POINT = 4
_REMOVED = "//deleted"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. `device` is "major:minor"; `root` is the mounted directory in its file system."""

    device: str
    root: str
    point: str
    options: frozenset[str]
    is_shared: bool

    @property
    def is_read_only(self) -> bool:
        """Whether the mount (not its file system) is read-only."""
        return "ro" in self.options

    @property
    def is_of_removed_directory(self) -> bool:
        """Whether the mounted directory was removed since."""
        return self.root.endswith(_REMOVED)

    def is_same_directory(self, other: Mount) -> bool:
        """Return whether two mounts show the same directory."""
        return (self.device, self.root) == (other.device, other.root)


def parse_mounts_at(mountinfo: bytes, point: str) -> tuple[Mount, ...]:
    """Return the mounts at a path, the topmost last.

    The kernel lists mounts of one path in the order in which they were made (show_mountinfo). Only
    lines of that path are parsed. Raises VolumeFailed for such a line that is not as documented.
    """
    octets = point.encode("utf-8", "surrogateescape")
    found = []
    for line in mountinfo.split(b"\n"):
        columns = line.split(b" ", _POINT + 1)
        if len(columns) > _POINT and _unescape(columns[_POINT]) == octets:
            found.append(_parse(line))
    return tuple(found)


def read_mounts_at(point: str, path: str = PATH, max_bytes: int = MAX_BYTES) -> tuple[Mount, ...]:
    """Return the mounts of this process at a path, the topmost last.

    Raises VolumeFailed for more than `max_bytes`, and OSError.
    """
    with open(path, "rb") as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise VolumeFailed(f"{path} has more than {max_bytes} bytes: the node has too many mounts")
    return parse_mounts_at(text, point)


def _parse(line: bytes) -> Mount:
    fields, separator, _ = line.partition(b" - ")
    columns = fields.split(b" ")
    if not separator or len(columns) < _MIN_COLUMNS:
        raise VolumeFailed(f"{PATH} has a line that is not as documented: {line[:200]!r}")
    _, _, device, root, point, options, *optional = columns
    return Mount(
        device=device.decode("ascii", "backslashreplace"),
        root=_text(root),
        point=_text(point),
        options=frozenset(options.decode("ascii", "backslashreplace").split(",")),
        is_shared=any(field.startswith(b"shared:") for field in optional),
    )


def _unescape(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return _ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), field)


def _text(field: bytes) -> str:
    return _unescape(field).decode("utf-8", "surrogateescape")
