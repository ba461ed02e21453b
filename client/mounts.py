"""Of which type the file system is that a path is on. proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from pathlib import Path

_MIN_COLUMNS = 6  # mount ID, parent ID, device, root, mount point, options
_ESCAPE = re.compile(r"\\([0-7]{3})")


def unescape(field: str) -> str:
    """Return a field of mountinfo or of /proc/mounts, in which blanks are octal numbers."""
    return _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), field)


def filesystem_type(path: str, mountinfo: str) -> str:
    """Return the type of the mount that an absolute path without links is on, "" if none is found.

    `mountinfo` is the text of /proc/self/mountinfo. Of mounts at one place the last is on top.
    """
    found, longest = "", -1
    for line in mountinfo.split("\n"):
        fields, separator, rest = line.partition(" - ")
        columns = fields.split(" ")
        if not separator or len(columns) < _MIN_COLUMNS:
            continue
        point = unescape(columns[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = rest.split(" ")[0], len(point)
    return found


def read_filesystem_type(path: str) -> str:
    """Return the type of the file system that a path is on, "" if that cannot be read."""
    try:
        # Escapes are octal bytes; latin-1 keeps any byte as it is.
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="latin-1")
        place = str(Path(path).resolve()).encode("utf-8", "surrogateescape").decode("latin-1")
    except OSError:
        return ""
    return filesystem_type(place, mountinfo)
