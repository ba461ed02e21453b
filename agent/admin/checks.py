"""Checks of the node and its kernel: what the agent needs of them.

Each function checks one thing, and returns what it found and the remedy. Blocks: not for the loop.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.errors import AgentError
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.facts.host_interfaces import INITIAL_PID_NAMESPACE
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED
from netutil.agent.listener.unix_socket import is_temporary_name
from netutil.agent.observability.build_info import BuildInfo
from netutil.agent.observability.memory import MemoryUse
from netutil.agent.observability.process_use import ProcessUse, own_descriptors
from netutil.agent.parsers.process import parse_status
from netutil.agent.pods.claims_api import ClaimsApi
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod

Outcome = Literal["ok", "warning", "failed"]

_SETGID, _SETUID, _DAC_READ_SEARCH, _SYS_PTRACE, _SYS_ADMIN = 6, 7, 2, 19, 21
_NEEDED = {
    _SYS_PTRACE: "CAP_SYS_PTRACE",
    _DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
    _SETUID: "CAP_SETUID",
    _SETGID: "CAP_SETGID",
}
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208
_FEW_WATCHES = 1024
_WARN_RATIO = 0.8
_MAX_ENTRIES = 4096
_MEBIBYTE = 2**20
_MAX_NAMES = 3
_MIN_FREE_INODES = 0.05  # of all that the file system has
_SCOPES = ("cri-containerd-", "crio-", "docker-")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `remedy` is "" where nothing is to be done."""

    name: str
    outcome: Outcome
    found: str
    remedy: str = ""


def versions(build: BuildInfo) -> Check:
    """Return the versions of the agent and of what its answers depend on."""
    return Check("version", "ok", str(build))


def process_ids(members: Iterable[str], number: int | None = None) -> Check:
    """Return whether the processes of pods are visible, by their cgroup.procs files' entries.

    The kernel writes 0 for a process that has no number in the reader's PID namespace
    (cgroup-v2.rst). `number` is the agent's own PID namespace.
    """
    name, remedy = "hostPID", "Set hostPID: true in the agent's DaemonSet."
    entries = list(members)
    hidden = entries.count("0")
    if hidden:
        found = f"{hidden} of {len(entries)} processes of pods have no number that the agent sees"
        return Check(name, "failed", found, remedy)
    if number is None:
        number = os.stat("/proc/self/ns/pid").st_ino
    if number == INITIAL_PID_NAMESPACE:
        return Check(name, "ok", "the agent is in the machine's first PID namespace")
    if entries:
        found = f"all {len(entries)} processes of pods have numbers that the agent sees"
        return Check(name, "ok", found)
    found = "the agent is in a PID namespace that is not the machine's first, and no pod runs"
    return Check(name, "warning", found, f"Unless the node itself is a container: {remedy}")


def cgroups(tree: CgroupTree, containers: Mapping[str, str]) -> tuple[Check, ...]:
    """Return the cgroup version and the driver, by the directories of the node's containers."""
    if not tree.hierarchies:
        remedy = "Mount the host's /sys into the agent's container; --host-root names it."
        return (Check("cgroups", "failed", "no cgroup file system of the host is visible", remedy),)
    return _version(tree), _driver(containers)


def _version(tree: CgroupTree) -> Check:
    controllers = sorted(name for name in tree.hierarchies if name != UNIFIED)
    if "cpuset" in controllers:
        both = ", a unified one beside them" * (UNIFIED in tree.hierarchies)
        return Check("cgroups", "ok", f"version 1: {', '.join(controllers)}{both}")
    unified = tree.hierarchies.get(UNIFIED)
    if unified is not None:
        try:
            text = Path(unified.directory, "cgroup.controllers").read_text(encoding="ascii")
        except OSError as error:
            text, why = "", f": {error.strerror}"
        else:
            why = ""
        if "cpuset" in text.split():
            return Check("cgroups", "ok", f"version 2 at {unified.directory}")
        found = f"version 2 at {unified.directory} without the cpuset controller{why}"
    else:
        found = f"version 1 without the cpuset hierarchy: {', '.join(controllers)}"
    return Check("cgroups", "failed", found, "Mount all of the host's /sys/fs/cgroup.")


def _driver(containers: Mapping[str, str]) -> Check:
    if not containers:
        remedy = (
            "None runs; or the kubelet's tree stands elsewhere: give its cgroupRoot as"
            " --cgroup-root; or the agent sees another cgroup tree: look at the mount of /sys."
        )
        return Check("cgroup driver", "warning", "no container of a pod is seen", remedy)
    names = [os.path.basename(directory) for directory in containers.values()]
    kinds = {
        "systemd" if one.startswith(_SCOPES) and one.endswith(".scope") else "cgroupfs"
        for one in names
    }
    found = f"{' and '.join(sorted(kinds))}, {counted(len(names), 'container')}"
    return Check("cgroup driver", "ok", found)


def host_files(host_root: str) -> Check:
    """Return whether the host's /sys is to be seen."""
    root = host_root.rstrip("/")
    missing = []
    for path in (f"{root}/sys/devices/system/cpu/online", f"{root}/sys/bus/pci/devices"):
        try:
            os.stat(path)
        except OSError as error:
            missing.append(f"{path}: {error.strerror}")
    if missing:
        remedy = "Mount the host's /sys there, or let --host-root name where it is mounted."
        return Check("host /sys", "failed", "; ".join(missing), remedy)
    return Check("host /sys", "ok", f"{root}/sys")


def capabilities(effective: int | None = None) -> Check:
    """Return which capabilities the agent lacks."""
    name = "capabilities"
    if effective is None:
        text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        effective = parse_status(text).effective_capabilities
    missing = [text for bit, text in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        remedy = "Add them in the container's securityContext, as manifests/hardened does."
        return Check(name, "failed", f"without {', '.join(missing)}", remedy)
    if not effective >> _SYS_ADMIN & 1:
        found = "without CAP_SYS_ADMIN: interfaces are answered as reported only, not as they are"
        return Check(name, "warning", found, "Intended in manifests/hardened; else run privileged.")
    return Check(name, "ok", "all that are needed")


def kernel(pin_name: str) -> Check:
    """Return how callers are pinned."""
    release = os.uname().release
    if pin_name == "SO_PEERPIDFD":
        return Check("kernel", "ok", f"Linux {release}: SO_PEERPIDFD and pidfd_open")
    found = f"Linux {release}: no SO_PEERPIDFD, callers are pinned by {pin_name}"
    remedy = "Linux 6.5 or later closes the small window that docs/threat-model.md describes."
    return Check("kernel", "warning", found, remedy)


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 pod", "2 pods"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def pod_fields(pods: Iterable[Pod], flaws: Flaws) -> Check:
    """Return whether the last pod list was understood, and all that was read since the start."""
    name = "pod fields"
    odd = [pod for pod in pods if pod.not_understood]
    found = []
    if odd:
        fields = sum(len(pod.not_understood) for pod in odd)
        first = f"{odd[0].full_name} {odd[0].not_understood[0]}"
        are = "is" if fields == 1 else "are"
        whose = f"{counted(fields, 'field')} of {counted(len(odd), 'pod')}"
        found.append(f"{whose} {are} unknown, the first {first}")
    if flaws.entries:
        found.append(
            f"left out {counted(flaws.entries, 'time')} since the start: an entry that is no pod,"
            f" or has no usable name, namespace or UID; the last, {flaws.last_entry}"
        )
    if not found:
        return Check(name, "ok", "all that the agent uses of the pods is as core/v1 says")
    remedy = "Compare them with core/v1 at the pod source; the agent's log names each with its pod."
    return Check(name, "warning", "; ".join(found), remedy)


def resource_claims(
    metadata: DeviceMetadataFiles | None,
    waiting: Collection[str] = (),
    *,
    has_other_source: bool = False,
) -> Check:
    """Return whether the device metadata of drivers can be read, and which drivers write it.

    `waiting` are pods that refer to claims, whose devices are not known without metadata, unless
    the API server is another source.
    """
    name = "ResourceClaims"
    if metadata is None:
        return Check(name, "ok", "not read: --resource-claims=off")
    try:
        drivers = metadata.drivers()
    except AgentError as error:
        if waiting:
            return Check(name, "warning", error.message, error.advice)
        return Check(name, "ok", f"{error.message} No pod refers to claims.")
    found = f"device metadata in {metadata.plugins}: {_names(list(drivers)) or 'of no driver'}"
    if waiting and not drivers and not has_other_source:
        found += f"; {counted(len(waiting), 'pod')} with claims: {_names(list(waiting))}"
        remedy = (
            "See whether the drivers can write device metadata (KEP-5304), and enable it; or follow"
            " the claims' status with --resource-claims=apiserver."
        )
        return Check(name, "warning", found, remedy)
    return Check(name, "ok", found)


def claims_api(api: ClaimsApi | None) -> Iterator[Check]:
    """Yield whether the API server's claims and slices are followed, nothing where they need not.

    What the API server does not say is missing beside the device metadata: no failure.
    """
    if api is None:
        return
    name, error = "ResourceClaims at the API server", api.error
    held = f"{counted(len(api), 'claim')} of this node from {api.describe()}"
    if error is not None:
        yield Check(name, "warning", f"{error.message} Held: {held}", error.advice)
    elif not api.is_current:
        yield Check(name, "warning", f"not listed yet, from {api.describe()}", "Ask again.")
    else:
        yield Check(name, "ok", f"{held}, confirmed {api.unconfirmed_seconds:.0f} s ago")


def clock(started: Iterable[datetime], now: datetime | None = None) -> Check:
    """Return whether the clock is set: certificates and the age of devices depend on it."""
    now = now or datetime.now(UTC)
    ahead = max(started, default=now) - now
    if ahead > timedelta(seconds=2):
        found = f"{ahead.total_seconds():.0f} s behind the start of a container, as the list has it"
        return Check("clock", "failed", found, "Set the node's clock: chrony or systemd-timesyncd.")
    synchronised = _is_synchronised()
    if synchronised is False:
        remedy = "See that chrony or systemd-timesyncd runs on the node."
        return Check("clock", "warning", "the kernel says it is not synchronised", remedy)
    said = "synchronised" if synchronised else "whether it is synchronised, the kernel does not say"
    return Check("clock", "ok", said)


def _is_synchronised() -> bool | None:
    """Return what adjtimex(2) says, None where it may not be asked."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: reads only
    answer: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return None if answer < 0 else answer != _TIME_ERROR


def socket_file(name: str, path: str, mode: int, *, others_enter: bool) -> Check:
    """Return whether a socket of the agent is at its path, with its rights."""
    remedy = "The agent binds it again within two seconds; if not, its log says why."
    try:
        status, directory = os.lstat(path), os.stat(os.path.dirname(path))
    except OSError as error:
        return Check(name, "failed", f"{path}: {error.strerror}", remedy)
    if not stat.S_ISSOCK(status.st_mode):
        return Check(name, "failed", f"{path} is no socket", remedy)
    if stat.S_IMODE(status.st_mode) != mode:
        found = f"{path} has mode {stat.S_IMODE(status.st_mode):04o} instead of {mode:04o}"
        return Check(name, "failed", found, remedy)
    rights = stat.S_IMODE(directory.st_mode)
    if rights & 0o022 or directory.st_uid != 0:
        found = f"others may write to {os.path.dirname(path)} (mode {rights:04o})"
        return Check(
            name, "failed", found, f"chown root and chmod {'0755' if others_enter else '0700'} it."
        )
    if others_enter and not rights & 0o001:
        found = f"only root may enter {os.path.dirname(path)} (mode {rights:04o})"
        return Check(name, "failed", found, "chmod 0755 it.")
    return Check(name, "ok", f"{path}, mode {mode:04o}")


def socket_directory(name: str, path: str) -> Check:
    """Return what the directory of a socket holds besides it, and whether names can be made there.

    A directory from the socket's path is there under a temporary name if it could not
    be removed. Everything else that the agent did not put there is a pod's or an administrator's.
    """
    directory, own = os.path.split(path)
    try:
        with os.scandir(directory) as found:
            entries = list(islice(found, _MAX_ENTRIES))
        others = [entry.name for entry in entries if entry.name != own]
        aside = [
            one for one in others if is_temporary_name(one, own) and not _is_socket(directory, one)
        ]
        foreign = [one for one in others if not is_temporary_name(one, own)]
        system = os.statvfs(directory)
    except OSError as error:
        remedy = "Make it again as a directory of root, and delete the agent's pod."
        return Check(name, "failed", f"{directory}: {error.strerror}", remedy)
    if system.f_files and system.f_favail < system.f_files * _MIN_FREE_INODES:
        found_inodes = f"{system.f_favail} of {system.f_files} inodes of {directory} are free"
        remedy = f"Remove what fills that file system: `df -i {directory}`, `ls {directory}`."
        return Check(name, "warning", found_inodes, remedy)
    if aside:
        said = f"moved aside from {path} and not removed: {_names(aside)}"
        remedy = f"Look at it in {directory} and remove it by hand; {_POLICY}"
        return Check(name, "warning", said, remedy)
    if foreign:
        more = "at least " * (len(entries) == _MAX_ENTRIES)
        count = f"{more}{len(foreign)}"
        said = f"{directory} holds what the agent did not make ({count}): {_names(foreign)}"
        remedy = f"`rmdir` what is empty there; {_POLICY}"
        return Check(name, "warning", said, remedy)
    if os.path.islink(directory):
        remedy = "Pods mount what the link names at their start: make it a directory of root."
        return Check(name, "warning", f"{directory} is a symbolic link", remedy)
    return Check(name, "ok", f"{directory} holds nothing but the socket")


_POLICY = "manifests/policies keeps pods from making names there (docs/threat-model.md)."


def _is_socket(directory: str, name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(os.path.join(directory, name)).st_mode)
    except FileNotFoundError:
        return True  # an agent that starts has given its socket the final name


def _names(names: list[str]) -> str:
    listed = ", ".join(sorted(names)[:_MAX_NAMES])
    return listed + ", …" * (len(names) > _MAX_NAMES)


def descriptors(needed: int) -> Check:
    """Return whether the agent may open as many files as its limit of connections takes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = own_descriptors()
    found = f"{used} open of {soft if soft != resource.RLIM_INFINITY else 'any number'}"
    remedy = "Raise the container's RLIMIT_NOFILE, or lower --max-connections."
    if soft != resource.RLIM_INFINITY and used > soft * _WARN_RATIO:
        return Check("descriptors", "failed", found, remedy)
    if soft != resource.RLIM_INFINITY and soft < needed:
        return Check("descriptors", "warning", f"{found}; all connections need {needed}", remedy)
    return Check("descriptors", "ok", found)


def memory(use: MemoryUse, process: ProcessUse, percent: int, now: datetime | None = None) -> Check:
    """Return how near the memory of the agent's cgroup is to the high watermark.

    `percent` is the watermark, as a share of the limit. What the agent's process uses is said too.
    """
    age = (now or datetime.now(UTC)).timestamp() - process.started_seconds
    age_seconds = max(1, int(age))
    found = (
        f"{process.rss_bytes / _MEBIBYTE:.1f} MiB resident,"
        f" {process.cpu_seconds / age_seconds:.1%} of a CPU since the start"
        f" {timedelta(seconds=age_seconds)} ago, {counted(process.threads, 'thread')}"
    )
    if use.limit_bytes is None:
        return Check("memory", "ok", f"{found}; no limit of the agent's cgroup is seen")
    found += f"; its cgroup uses {use.used_bytes / use.limit_bytes:.0%} of its limit"
    remedy = "Raise the memory limit of the agent's container; `netutil node top` shows callers."
    if use.used_bytes * 100 > use.limit_bytes * percent:
        return Check("memory", "failed", f"{found}: new connections are rejected", remedy)
    if use.used_bytes * 100 > use.limit_bytes * percent * _WARN_RATIO:
        found += f"; beyond {percent} % new connections are rejected"
        return Check("memory", "warning", found, remedy)
    return Check("memory", "ok", found)


def connections(held: int, most: int) -> Check:
    """Return how near the agent is to its limit of connections."""
    found = f"{held} of {most}"
    if held > most * _WARN_RATIO:
        remedy = "`netutil node top` shows the holders; --max-connections sets the limit."
        return Check("connections", "warning", found, remedy)
    return Check("connections", "ok", found)


def device_plugin(state: PluginState) -> tuple[Check, ...]:
    """Return whether the kubelet has the device plugin; nothing for an agent without it."""
    name = "device plugin"
    if not state.resource_name:
        return ()
    if state.registered:
        containers = counted(state.allocations.containers, "container")
        found = f"{state.resource_name}, mounted in {containers} since the agent's start"
        return (Check(name, "ok", found),)
    problem = state.problem or "The device plugin has not registered yet."
    return (Check(name, "warning", f"{state.resource_name}: {problem}", state.remedy),)


def file_watches(path: str = "/proc/sys/fs/inotify/max_user_watches") -> Check:
    """Return whether `Watch` can follow the cgroups of a full node."""
    try:
        most = int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        return Check("inotify", "warning", f"{path} cannot be read: {error}")
    if most < _FEW_WATCHES:
        remedy = f"sysctl fs.inotify.max_user_watches={_FEW_WATCHES * 8}; until then CPUs that"
        return Check("inotify", "warning", f"{most} watches", f"{remedy} change are noticed late.")
    return Check("inotify", "ok", f"{most} watches")
