"""Reads one file of a cgroup, in the form in which the kernel writes it."""

from __future__ import annotations

import errno
import re

from netutil.agent.errors import FailedPrecondition, Reason, is_resource_exhaustion
from netutil.agent.facts.sysfs import Files

# bitmap_print_to_pagebuf in the kernel's lib/bitmap-str.c: "0-3,8", or nothing.
CPU_LIST = re.compile(r"(?:[0-9]{1,6}(?:-[0-9]{1,6})?(?:,[0-9]{1,6}(?:-[0-9]{1,6})?)*)?")
_NUMBER = re.compile(r"-?[0-9]{1,19}")


def number_if_there(files: Files, directory: str, name: str) -> int | None:
    """Return the number that a file holds, None if it is not there. Raises as `match_if_there`."""
    match = match_if_there(files, directory, name, _NUMBER)
    return int(match[0]) if match else None


def match_if_there(
    files: Files, directory: str, name: str, form: re.Pattern[str]
) -> re.Match[str] | None:
    """Return the match of a file's whole text; None if the cgroup or the file is not there.

    Raises `FailedPrecondition` for another text or an unreadable file; OSError for a shortage.
    """
    path = f"{directory}/{name}"
    try:
        text = files.read(directory, name).decode("ascii", errors="replace")
        text = text.removesuffix("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # the cgroup went after the file was opened
            return None
        if is_resource_exhaustion(error):
            raise
        raise unusable(path, f"cannot be read: {error.strerror}") from error
    match = form.fullmatch(text)
    if match is None:
        raise unusable(path, f"holds {text[:60]!r}, which is not what the kernel writes there")
    return match


def unusable(path: str, why: str) -> FailedPrecondition:
    """Return the error for a file of a cgroup that cannot be used."""
    return FailedPrecondition(
        Reason.CGROUP_FILE_UNUSABLE,
        f"The file {path} {why}.",
        read=path,
        advice="Look at that file on the node; see whether --host-root names the host's own"
        " cgroup file systems.",
    )
