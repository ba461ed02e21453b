"""Text that is safe on a terminal, and the words of the values that appear in it. Pure.

Names and values come from workloads, so nothing that could control a terminal leaves this
module: whatever str.isprintable() rejects (control and format characters, exotic blanks, line
ends) is written as a Python escape. `escaped` also doubles backslashes, so that different texts
stay different.
"""

from __future__ import annotations

import unicodedata

from netutil.client.models.core import CgroupLevel
from netutil.client.models.devices import ClaimRequest, DeviceSource, InterfaceClaim

NOTHING = "-"
"""Printed for a value that is not there."""
_CUT = "..."
_MAX_NAME = 64
"""Columns of a name within a sentence."""
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ZERO_WIDTH = frozenset({"Mn", "Me"})


def escaped(text: str) -> str:
    """The text on one line, reversibly, with printable characters only."""
    return "".join(map(_escape, text.replace("\\", "\\\\")))


def harmless(text: str) -> str:
    """The text with its newlines and tabs, but without anything that steers a terminal."""
    return "".join(char if char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    return _SHORT_ESCAPES.get(char) or char.encode("unicode_escape").decode("ascii")


def columns(text: str) -> int:
    """Columns that printable text takes on a terminal (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in _ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Printable text within so many columns, with "..." for what was cut off."""
    if columns(text) <= width:
        return text
    kept, used = [], len(_CUT)
    for char in text:
        used += _columns_of(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + _CUT


def cut_middle(text: str, width: int) -> str:
    """Printable text within so many columns, with "..." for what was cut out of its middle."""
    if columns(text) <= width:
        return text
    kept = max(0, width - len(_CUT))
    head, tail = text[: (kept + 1) // 2], text[len(text) - kept // 2 :]
    while columns(head) + columns(tail) > kept:  # wide characters
        head, tail = head[:-1], tail[1:]
    return f"{head}{_CUT}{tail}"


_LEVELS = {
    CgroupLevel.CONTAINER: "container",
    CgroupLevel.POD: "pod",
    CgroupLevel.QOS_CLASS: "QoS class",
    CgroupLevel.KUBEPODS: "kubepods",
    CgroupLevel.ABOVE: "above kubepods",
}


def level_name(level: CgroupLevel | None) -> str:
    """Whose cgroup it is, in the words of Kubernetes; "-" for None or what is not known here."""
    return NOTHING if level is None else _LEVELS.get(level, NOTHING)


def container_name(name: str) -> str:
    """The name of a container, or that the pod list does not have it."""
    return name or "(name not known)"


def certainty_mark(source: DeviceSource) -> str:
    """What is said beside a device that is no fact, "" of one that is."""
    return " (inferred)" if source.is_inferred else " (guess)" if source.is_guessed else ""


def claim_title(claim: ClaimRequest | InterfaceClaim) -> str:
    """Whose request it is ("request vf of claim nic"). Names that are too long are cut."""
    resource = claim.extended_resource if isinstance(claim, ClaimRequest) else ""
    name = f"claim {cut(claim.pod_claim or claim.claim_name, _MAX_NAME)}"
    if not claim.pod_claim and resource:
        name = f"extended resource {cut(resource, _MAX_NAME)}"
    return f"request {cut(claim.request, _MAX_NAME)} of {name}" if claim.request else name
