"""The network interfaces of the node itself and its CPU counts, for the operator.

The agent has a network namespace of its own, so the links are read over rtnetlink in that of the
node's first process (/proc/1 with hostPID). psutil cannot do that: `net_io_counters` reads
/proc/net/dev, which is of the process's first thread whatever namespace the calling thread is in,
and `net_if_stats` has its names from there. psutil counts the CPUs.

Pods in the host's network choose names of links, and CNI plugins make a link for each pod: names
are bytes of any kind, and how many links are read is bounded. Everything blocks: not for the loop.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import msgspec
from netutil.agent.errors import AgentError, Reason, Unavailable, resource_exhausted
from netutil.agent.facts.pci import ABSENT
from netutil.agent.facts.rtnetlink import Message, dump, open_rtnetlink
from netutil.agent.facts.sysfs import text_if_there
from netutil.agent.parsers.net_dev import parse_net_dev
from netutil.agent.parsers.rtnetlink import Counters, LinkMessage, parse_link

FIRST_PROCESS = "/proc/1"
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode (PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h)."""
MAX_INTERFACES = 4096
"""Beyond it the last links of the dump are left out; a dump is 8 MiB at most."""
MAX_HARDWARE_INTERFACES = 256
"""Whose speed is read: the driver answers that, and may ask its firmware."""
_RTM_GETLINK, _RTM_NEWLINK = 18, 16
_IFINFOMSG = struct.Struct("=BBHiII")
_OF_NODE = "the node's network namespace"
_EVERY_LINK = _IFINFOMSG.pack(0, 0, 0, 0, 0, 0)
_NUMBER = re.compile(r"[0-9]{1,9}")
_DUPLEX = ("full", "half")


class CpuCounts(msgspec.Struct, frozen=True):
    """CPUs that run now, and their cores; None where psutil does not know."""

    logical: int | None
    cores: int | None


class HostInterface(msgspec.Struct, frozen=True):
    """One link: its name and counters; `link` is None where the agent may not see more."""

    name: str
    counters: Counters
    link: LinkMessage | None = None
    master: str = ""


class HostInterfaces(msgspec.Struct, frozen=True):
    """The links by index, or by name without a `link`. `error` is why more is not known."""

    interfaces: tuple[HostInterface, ...]
    truncated: bool = False
    error: AgentError | None = None


class LinkSpeed(msgspec.Struct, frozen=True):
    """What the driver of a link says; None where it does not say it."""

    megabits: int | None
    duplex: str | None


def read_cpu_counts() -> CpuCounts:
    """Return how many CPUs and cores run: sysconf(3) and core_cpus_list in sysfs, by psutil."""
    import psutil  # noqa: PLC0415  only an operator's call needs it

    return CpuCounts(psutil.cpu_count(logical=True), psutil.cpu_count(logical=False))


def read_host_interfaces(first_process: str = FIRST_PROCESS) -> HostInterfaces:
    """Return the links of the network namespace of the node's first process.

    Only the counters (`net/dev`) where the agent may not enter the namespace. Raises `Unavailable`
    if neither can be read, or if the namespace may be the agent's own; `ResourceExhausted` for a
    shortage and a dump that is too large, `FailedPrecondition` if the links change all the time.
    """
    _ensure_of_node(first_process)
    try:
        messages = _links_of(first_process)
    except PermissionError as error:
        return _counters_only(first_process, error)
    except TimeoutError as error:
        raise _unreadable("the kernel did not answer in time") from error
    except OSError as error:
        raise resource_exhausted(error, _read_from(first_process)) or _unreadable(
            str(error)
        ) from error
    try:
        links = [parse_link(one.data) for one in messages[:MAX_INTERFACES]]
    except ValueError as error:
        raise _unreadable(f"a message of the kernel is not as expected ({error})") from error
    names = {link.index: link.name for link in links}
    found = (
        HostInterface(link.name, link.counters, link, names.get(link.master or 0, ""))
        for link in sorted(links, key=lambda link: link.index)
    )
    return HostInterfaces(tuple(found), truncated=len(messages) > MAX_INTERFACES)


def read_speeds(host_root: str, interfaces: Iterable[HostInterface]) -> Mapping[str, LinkSpeed]:
    """Return the speeds of the links that have a device, by name; of the first 256 of them.

    By the path of the device: below /sys/class/net is what the mount's own network namespace has.
    Raises OSError if a file that is there cannot be read.
    """
    found: dict[str, LinkSpeed] = {}
    for one in interfaces:
        link = one.link
        if link is None or not link.parent_device:
            continue
        if len(found) == MAX_HARDWARE_INTERFACES:
            break
        directory = os.path.join(
            *(host_root, "sys/bus", link.parent_device_bus),
            *("devices", link.parent_device, "net", one.name),
        )
        found[one.name] = LinkSpeed(
            _number(text_if_there(directory, "speed", ABSENT)),
            _duplex(text_if_there(directory, "duplex", ABSENT)),
        )
    return found


def _ensure_of_node(first_process: str) -> None:
    """Raise `Unavailable` if /proc/1 may be a process of the agent's own pod.

    In the machine's first PID namespace it is the machine's init. In another one the node is a
    container, whose init is in another network namespace than the agent, or hostPID is missing.
    """
    if os.stat("/proc/self/ns/pid").st_ino == INITIAL_PID_NAMESPACE:
        return
    try:
        is_own = os.path.samestat(os.stat(f"{first_process}/ns/net"), os.stat("/proc/self/ns/net"))
    except OSError as error:
        raise _unreadable(f"the agent may not look at it: {error.strerror}") from error
    if is_own:
        why = "it cannot be distinguished from the agent's own: this is no first PID namespace"
        raise _unreadable(why, "Set hostPID: true in the agent's DaemonSet.")


def _links_of(first_process: str) -> list[Message]:
    """Return what RTM_GETLINK dumps. Raises OSError, PermissionError if it may not be entered."""
    namespace = os.open(f"{first_process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with closing(open_rtnetlink(namespace)) as connection:
            messages = dump(connection, _RTM_GETLINK, _EVERY_LINK, _OF_NODE)
    finally:
        os.close(namespace)
    return [one for one in messages if one.type == _RTM_NEWLINK]


def _counters_only(first_process: str, denied: PermissionError) -> HostInterfaces:
    why = f"the agent may not enter it ({denied.strerror}), so only counters are known"
    error = _unreadable(why, "The agent needs CAP_SYS_PTRACE and CAP_SYS_ADMIN to enter.")
    path = f"{first_process}/net/dev"
    try:
        counters = parse_net_dev(Path(path).read_bytes())
    except OSError as failure:
        raise resource_exhausted(failure, path) or error from failure
    except ValueError as failure:
        raise _unreadable(f"{path} is not as expected ({failure})") from failure
    found = (HostInterface(name, counters[name]) for name in sorted(counters)[:MAX_INTERFACES])
    return HostInterfaces(tuple(found), len(counters) > MAX_INTERFACES, error)


def _number(text: str | None) -> int | None:
    """Return a number; None for -1, which drivers write for "not known"."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _duplex(text: str | None) -> str | None:
    return text if text in _DUPLEX else None


def _read_from(first_process: str) -> str:
    return f"{first_process}/ns/net and rtnetlink"


def _unreadable(why: str, advice: str = "Try again.") -> Unavailable:
    return Unavailable(
        Reason.NETWORK_NAMESPACE_NOT_READABLE,
        f"The links of {_OF_NODE} cannot be read: {why}.",
        read=_read_from(FIRST_PROCESS),
        advice=advice,
    )
