"""Resolves a PID of the caller's PID namespace to a process.

A request carries the number that a process has in the caller's own PID
namespace. NStgid of /proc/<pid>/status (pid_namespaces(7)) lists a process's
numbers from the host's namespace inwards; two namespaces on one level differ
in their inode, reached over NS_GET_PARENT (ioctl_ns(2)).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable

from netutil.agent.errors import (
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
)
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import PinnedProcess

NS_GET_PARENT = 0xB702
MAX_PROCESSES = 4096
"""Processes of a pod that are looked at to find one: a pod with more must ask by its own pid."""


def find_process(caller: PinnedProcess, number: int, pod_processes: Iterable[int]) -> PinnedProcess:
    """Return a new pin of the process that `number` names in the caller's PID namespace.

    `pod_processes` are the host pids of the caller's pod. Raises `NotFound` if
    none of them has the number there, `Unauthenticated` if the caller has exited,
    `ResourceExhausted` for a pod of too many processes, PermissionError if it may be one
    that the agent may not look at. A caller in the host's PID
    namespace may name any process; whether that one is in its pod is for the
    caller of this function to check.
    """
    numbers = caller.status().namespace_pids
    level = len(numbers) - 1
    caller.own_number = numbers[level]
    if numbers[level] == number:
        caller.ensure_alive()
        return caller.share()
    if level == 0:
        return _pin_or_missing(number, number)
    namespace = _namespace(caller, 0)
    caller.ensure_alive()
    hidden: PermissionError | None = None
    for count, pid in enumerate(pod_processes):
        if count >= MAX_PROCESSES:
            raise _too_many()
        try:
            process = _candidate(pid, number, level, namespace)
        except PermissionError as error:
            # One that the agent may not look at (a security module, a missing
            # capability) must not hide the others; but then "none" would be a guess.
            hidden = error
            continue
        if process is not None:
            return process
    raise hidden or _missing(number)


def shares_pid_namespace(one: PinnedProcess, other: PinnedProcess) -> bool:
    """Return whether two processes are in one PID namespace."""
    return _namespace(one, 0) == _namespace(other, 0)


def _candidate(
    pid: int, number: int, level: int, namespace: tuple[int, int]
) -> PinnedProcess | None:
    try:
        process = pin_pid(pid)
    except Unauthenticated:
        return None
    found = False
    try:
        numbers = process.status().namespace_pids
        if len(numbers) > level and numbers[level] == number:
            found = _namespace(process, len(numbers) - 1 - level) == namespace
            process.ensure_alive()
    except Unauthenticated:
        found = False
    finally:
        if not found:
            process.close()
    return process if found else None


def _namespace(process: PinnedProcess, levels_up: int) -> tuple[int, int]:
    """Return the identity (device, inode) of the process's PID namespace or an ancestor of it."""

    def read(thread: int) -> tuple[int, int]:
        descriptor = os.open("ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
        try:
            for _ in range(levels_up):
                parent = fcntl.ioctl(descriptor, NS_GET_PARENT)
                os.close(descriptor)
                descriptor = parent
            status = os.fstat(descriptor)
            return status.st_dev, status.st_ino
        finally:
            os.close(descriptor)

    return process.through_running_thread(read)


def _pin_or_missing(pid: int, number: int) -> PinnedProcess:
    try:
        return pin_pid(pid)
    except Unauthenticated:
        raise _missing(number) from None


def _missing(number: int) -> NotFound:
    return NotFound(
        Reason.PID_NOT_FOUND,
        f"There is no process {number} in the caller's pod and PID namespace.",
        read="NStgid in /proc/<pid>/status",
        advice="Send the pid as the caller's own /proc shows it, or leave it empty.",
    )


def _too_many() -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_PROCESSES,
        f"The caller's pod has more than {MAX_PROCESSES} processes; they are not all searched.",
        read="cgroup.procs of the pod",
        advice="Let the process ask for itself, with an empty pid.",
    )


def outside_pod(number: int) -> PermissionDenied:
    """Return the refusal of a process that is not in the caller's pod."""
    return PermissionDenied(
        Reason.PID_OUTSIDE_POD,
        f"Process {number} is not in the caller's pod.",
        read="/proc/<pid>/cgroup",
        advice="A caller is answered for processes of its own pod only.",
    )
