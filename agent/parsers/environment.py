"""Parses a process's environment, and the devices in its variables. Reads nothing.

`parse_environment` yields the CPU between pieces of a large block: it is not for the event loop.
"""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from netutil.agent.errors import Reason, ResourceExhausted
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.yield_cpu import yield_cpu

MAX_ENTRY_BYTES = 32 * resource.getpagesize()
"""No program is started with a longer entry (MAX_ARG_STRLEN, execve(2)): 128 KiB of pages of 4 KiB.
Only a process that moves its environment (PR_SET_MM) has longer ones."""
MAX_ENTRIES = 65_536
"""An environment of 2 MiB, which a stack of 8 MiB allows (execve(2)), has fewer if an entry and its
pointer take 32 bytes on average."""
_SLICE_BYTES = 64 * 1024
_ENTRIES_PER_PIECE = 512
"""Decoding so many takes about 0.2 ms."""
MAX_DEVICES = 256
MAX_PLACES = 4 * MAX_DEVICES
"""Places of one list, those that hold nothing included."""
MAX_INFO_LENGTH = 256 * 1024
"""Characters of all …_INFO variables together, in the order of their names."""
MAX_NAME_LENGTH = 128
MAX_VARIABLE_LENGTH = 512
"""Characters of a variable's name, which is returned with each of its devices. A resource's has at
most 317: a DNS subdomain, a slash and 63 characters (Kubernetes, "Extended resources")."""
MAX_INFO_DEPTH = 16
"""Each level is three of a protobuf message, which has at most 100."""
PREFIX = "PCIDEVICE_"
_SUFFIX = "_INFO"


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables by name, and what could not be carried unchanged.

    `replaced_entries` counts entries that hold bytes which are not UTF-8 (they
    appear as U+FFFD), `skipped_entries` those without "=".
    """

    variables: dict[str, str]
    replaced_entries: int
    skipped_entries: int


def parse_environment(block: bytes) -> Environment:
    """Return the variables of a NUL-separated environment block.

    The first "=" ends the name, every other one and every newline belongs to
    the value. Of two entries with one name the first counts, as for getenv(3).
    A process may write anything into its environment: raises `ResourceExhausted` for more than
    `MAX_ENTRIES`, or for one longer than `MAX_ENTRY_BYTES`, and nothing else.
    """
    variables: dict[str, str] = {}
    replaced = skipped = 0
    for entry in _entries(block):
        if b"=" not in entry:
            skipped += 1
            continue
        try:
            text = entry.decode("utf-8")
        except UnicodeDecodeError:
            text = entry.decode("utf-8", errors="replace")
            replaced += 1
        name, _, value = text.partition("=")
        variables.setdefault(name, value)
    return Environment(variables, replaced, skipped)


def _entries(block: bytes) -> Iterator[bytes]:
    """Yield the entries that are not empty. Raises `ResourceExhausted` past a limit.

    The block is split in slices: a call of C holds the interpreter's lock to its end, and so keeps
    the event loop waiting.
    """
    count = 0
    for part in _slices(block):
        for entry in part.split(b"\0"):
            if not entry:
                continue
            count += 1
            if not count % _ENTRIES_PER_PIECE:
                yield_cpu()
            if count > MAX_ENTRIES:
                raise _too_large(f"has more than {MAX_ENTRIES} entries")
            if len(entry) > MAX_ENTRY_BYTES:
                raise _entry_too_long()
            yield entry


def _slices(block: bytes) -> Iterator[bytes]:
    """Yield the block in slices that end with an entry, none much longer than the longest one."""
    start = 0
    while start < len(block):
        least = start + _SLICE_BYTES
        most = least + MAX_ENTRY_BYTES + 1
        end = block.find(b"\0", least, most)
        if end < 0:
            if most < len(block):
                raise _entry_too_long()
            end = len(block)
        yield block[start:end]
        start = end + 1
        if start < len(block):
            yield_cpu()


def _entry_too_long() -> ResourceExhausted:
    return _too_large(f"has an entry of more than {MAX_ENTRY_BYTES} bytes")


def _too_large(what: str) -> ResourceExhausted:
    return ResourceExhausted(
        Reason.ENVIRONMENT_TOO_LARGE,
        f"The process's environment {what}.",
        read="/proc/<pid>/environ",
        advice="Pass large values in a file. enableServiceLinks: false leaves the variables of"
        " services out.",
    )


class DeviceProblem(StrEnum):
    """Why the info of a device is not reported, or why a device is no PCI device or no link."""

    NOT_AN_ADDRESS = "is no PCI address"
    NOT_A_LINK_NAME = "is no name of a link"
    INFO_TOO_LONG = "has an info that is too long"
    INFO_NOT_JSON = "has an info that is not JSON"
    INFO_NOT_AN_OBJECT = "has an info that is no JSON object"
    INFO_NOT_PORTABLE = "has an info that nests too deep or holds what protobuf cannot"
    INFO_REPORTED_BEFORE = "is named before, where its info stands"


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One device of a variable.

    `name` is what the variable holds, cut at `MAX_NAME_LENGTH` characters;
    `pci_address` is the same as sysfs spells it, or "" if it is none: subfunctions are
    named "mlx5_core.sf.4", and AF_XDP devices as their links are. `info` is None if nothing or
    nothing usable is said of it, and where the list has named the device before: a list of one
    address would else make of a variable an answer of as many times its size. `from_start`: the
    process's own environment does not name it, only the one that its container was started with
    does.
    """

    variable: str
    position: int
    name: str
    pci_address: str
    info: Mapping[str, Any] | None = None
    problem: DeviceProblem | None = None
    from_start: bool = False


def parse_devices(environment: Mapping[str, str]) -> tuple[AllocatedDevice, ...]:
    """Return the devices by name of the variable, then by position in it.

    A resource's own name may end in "info". So PCIDEVICE_X_INFO is a list of
    devices if it holds an address, or if there is no PCIDEVICE_X and it does
    not begin as JSON does. Raises `ResourceExhausted` for more than `MAX_DEVICES`, or a list of
    more than `MAX_PLACES`.
    """
    lists = sorted(name for name in environment if _is_list(environment, name))
    listed = frozenset(lists)
    found: list[AllocatedDevice] = []
    left = MAX_INFO_LENGTH
    for variable in lists:
        information = variable + _SUFFIX
        text = environment.get(information) if information not in listed else None
        infos, problem = _infos(text, left)
        reported: set[str] = set()
        if problem is not DeviceProblem.INFO_TOO_LONG:
            left -= len(text or "")
        if environment[variable].count(",") >= MAX_PLACES:
            raise too_many_devices(variable)
        for position, item in enumerate(environment[variable].split(",")):
            name = item.strip()[:MAX_NAME_LENGTH]
            if not name:
                continue
            found.append(_device(variable, position, name, infos, problem, reported))
            if len(found) > MAX_DEVICES:
                raise too_many_devices(variable)
    return tuple(found)


def _is_list(environment: Mapping[str, str], name: str) -> bool:
    if not name.startswith(PREFIX) or name == PREFIX or len(name) > MAX_VARIABLE_LENGTH:
        return False
    if not name.endswith(_SUFFIX):
        return True
    value = environment[name]
    if value.lstrip().startswith("{"):
        return False
    if name.removesuffix(_SUFFIX) not in environment:
        return True
    return any(normalise_pci_address(item.strip()) for item in value.split(","))


def _device(
    variable: str,
    position: int,
    name: str,
    infos: Mapping[str, Any],
    problem: DeviceProblem | None,
    reported: set[str],
) -> AllocatedDevice:
    address = normalise_pci_address(name) or ""
    info = infos.get(address or name)
    if info is not None and (address or name) in reported:
        info, problem = None, DeviceProblem.INFO_REPORTED_BEFORE
    reported.add(address or name)
    if info is not None and not isinstance(info, dict):
        info, problem = None, DeviceProblem.INFO_NOT_AN_OBJECT
    if info is not None and not _is_portable(info, MAX_INFO_DEPTH):
        info, problem = None, DeviceProblem.INFO_NOT_PORTABLE
    if not address and problem is None:
        problem = DeviceProblem.NOT_AN_ADDRESS
    return AllocatedDevice(variable, position, name, address, info, problem)


def _infos(text: str | None, longest: int) -> tuple[Mapping[str, Any], DeviceProblem | None]:
    """Return what a variable …_INFO says, by address."""
    if text is None:
        return {}, None
    if len(text) > longest:
        return {}, DeviceProblem.INFO_TOO_LONG
    try:
        document = json.loads(text)
    except RecursionError:
        return {}, DeviceProblem.INFO_NOT_PORTABLE
    except ValueError:
        return {}, DeviceProblem.INFO_NOT_JSON
    if not isinstance(document, dict):
        return {}, DeviceProblem.INFO_NOT_AN_OBJECT
    return {normalise_pci_address(key) or key: value for key, value in document.items()}, None


def _is_portable(value: object, deepest: int) -> bool:
    """Return whether a google.protobuf.Struct can hold the value, and every client read it."""
    if deepest < 0:
        return False
    if isinstance(value, dict):
        return all(_is_text(key) and _is_portable(one, deepest - 1) for key, one in value.items())
    if isinstance(value, list):
        return all(_is_portable(one, deepest - 1) for one in value)
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int | float):
        return _is_double(value)
    return True


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def too_many_devices(variable: str) -> ResourceExhausted:
    """Return the error for an environment of more devices than are reported."""
    read = variable[:MAX_NAME_LENGTH]
    return ResourceExhausted(
        Reason.TOO_MANY_DEVICES,
        f"The container's environment names more than {MAX_DEVICES} devices.",
        read=f"variables {PREFIX}* up to {read}" if variable.startswith(PREFIX) else read,
    )
