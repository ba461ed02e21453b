"""Checks of an agent's installation that need no agent, from a shell on the node."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from netutil.client.errors import NetUtilError
from netutil.client.models.node import Check, Diagnosis
from netutil.client.rpc.diagnose import why_unreachable
from netutil.client.rpc.endpoint import PUBLIC

_SOCKET = "/run/netutil/net.sock"
_POD_RESOURCES = "/var/lib/kubelet/pod-resources/kubelet.sock"
_KUBELET = ("127.0.0.1", 10250)
_KUBELET_SECONDS = 1.0
_SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h
_AGENT = "netutil-agent"
_LOOK = "kubectl -n netutil get pods -o wide and kubectl -n netutil logs say more"


def with_outside(answer: Diagnosis | NetUtilError, public_socket: str | None) -> Diagnosis:
    """The agent's own checks, or those that need no agent, and checks of its sockets."""
    path = public_socket or os.environ.get(PUBLIC.variable) or _SOCKET
    if isinstance(answer, Diagnosis):
        said = Check("agent", "ok", "answers on its operator socket", "")
        return Diagnosis((said, _connects(path), *answer.checks))
    said = Check("agent", "failed", answer.message, answer.advice)
    return Diagnosis((said, _user(), *_process(), _connects(path), *_node()))


def _node() -> tuple[Check, ...]:
    return _kernel(), _cgroups(), _kubelet(), _pod_resources()


def _user() -> Check:
    if os.geteuid() == 0:
        return Check("user", "ok", "root", "")
    found = f"uid {os.geteuid()}: the operator socket answers root only"
    return Check("user", "failed", found, "Run this as root.")


def _connects(path: str) -> Check:
    """Whether the pods' socket accepts connections."""
    ended = f"the agent on this node has ended or is restarting: {_LOOK}"
    endpoint = replace(
        PUBLIC,
        default_path=_SOCKET,
        if_missing=_LOOK,
        if_denied="run this as root",
        if_refused=ended,
    )
    problem = why_unreachable(path, endpoint)
    if problem is None:
        return Check("connect", "ok", f"{path} accepts connections", "")
    return Check("connect", "failed", problem.message, problem.advice)


def _process() -> Iterator[Check]:
    """The agent's process, found by name, and whether it is in this PID namespace."""
    pids = [entry.name for entry in os.scandir("/proc") if _is_agent(entry.name)]
    if not pids:
        found = f"no process is named {_AGENT}"
        yield Check("process", "failed", found, f"Install or start it; {_LOOK}.")
        return
    listed = ", ".join(pids)
    found = f"pid {listed} runs but does not answer on the operator socket"
    yield Check("process", "warning", found, f"See --admin-socket, and the log: {_LOOK}.")
    if any(_levels(pid) > 1 for pid in pids):
        found = f"pid {listed} is in a PID namespace of its own"
        yield Check("hostPID", "failed", found, "Set hostPID: true in the agent's DaemonSet.")


def _is_agent(name: str) -> bool:
    if not name.isdecimal():
        return False
    with suppress(OSError):
        return Path("/proc", name, "comm").read_bytes().rstrip(b"\n") == _AGENT.encode()
    return False


def _levels(pid: str) -> int:
    """Number of PID namespaces of a process, from this one inwards (NSpid)."""
    with suppress(OSError):
        for line in Path("/proc", pid, "status").read_bytes().split(b"\n"):
            if line.startswith(b"NSpid:"):
                return len(line.split()) - 1
    return 0


def _kernel() -> Check:
    release = os.uname().release
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        found = f"Linux {release}: no pidfd_open ({error.strerror})"
        return Check("kernel", "failed", found, "Linux 5.3 or later is needed.")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        try:
            descriptor = left.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError:
            found = f"Linux {release}: no SO_PEERPIDFD"
            remedy = "Linux 6.5 or later closes the window that docs/threat-model.md describes."
            return Check("kernel", "warning", found, remedy)
    os.close(descriptor)
    return Check("kernel", "ok", f"Linux {release}: SO_PEERPIDFD and pidfd_open", "")


def _cgroups() -> Check:
    kinds = set()
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        fields = line.partition(b" - ")[2].split(b" ")
        if fields[0] == b"cgroup2":
            kinds.add("version 2")
        elif fields[0] == b"cgroup" and b"cpuset" in fields[-1].split(b","):
            kinds.add("version 1")
    if not kinds:
        found = "no cgroup file system with CPU sets is mounted here"
        return Check("cgroups", "failed", found, "Run this on the node, or mount the host's /sys.")
    return Check("cgroups", "ok", " and ".join(sorted(kinds)), "")


def _kubelet() -> Check:
    where = f"{_KUBELET[0]}:{_KUBELET[1]}"
    try:
        with socket.create_connection(_KUBELET, _KUBELET_SECONDS):
            return Check("kubelet", "ok", f"{where} accepts connections", "")
    except OSError as error:
        found = f"{where}: {error.strerror or 'no answer'}"
        remedy = (
            "If the kubelet listens elsewhere, --kubelet-url or NODE_IP says so; else start it."
        )
        return Check("kubelet", "warning", found, remedy)


def _pod_resources() -> Check:
    try:
        os.stat(_POD_RESOURCES)
    except OSError as error:
        found = f"{_POD_RESOURCES}: {error.strerror}"
        remedy = "Of a kubelet with another --root-dir, --pod-resources names it."
        return Check("PodResources", "warning", found, remedy)
    return Check("PodResources", "ok", _POD_RESOURCES, "")
