"""Real processes that say when they are ready, and that always end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import PinnedProcess

TIMEOUT_SECONDS = 20
READY = "import sys; print(flush=True); sys.stdin.read()"
"""Ends a script: say that all is set up, then wait for the end of the standard input."""

END_OF_FIRST_THREAD = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
"""A script of which the first thread ends once it is ready, and another waits for the end of the
standard input."""

BECOME = """
import ctypes, os
os.setgroups([]); os.setresgid({gid}, {gid}, {saved_gid}); os.setresuid({uid}, {uid}, {uid})
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: lost with the ids, and given back by execve(2)
"""


def become(uid: int, gid: int, saved_gid: int | None = None) -> str:
    """Return a script that takes on ids. In the script: others may not execute this Python."""
    return BECOME.format(uid=uid, gid=gid, saved_gid=gid if saved_gid is None else saved_gid)


@contextmanager
def process(script: str = "", *, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python script, under a command like `setpriv`, until it is ready; end it afterwards."""
    started = subprocess.Popen(
        [*before, sys.executable, "-I", "-c", f"{script}\n{READY}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"\n"
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def pinned(pid: int) -> Iterator[PinnedProcess]:
    pin = pin_pid(pid)
    try:
        yield pin
    finally:
        pin.close()


def child_of(pid: int) -> int:
    """Return the only child of a process: of `unshare --fork`, the program itself."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        (child,) = children.read().split()
    return int(child)


def wait_for_state(pid: int, state: str) -> None:
    """Wait until the first thread of a process is in a state of proc_pid_stat(5)."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != state:
        assert time.monotonic() < deadline, f"process {pid} does not come to state {state}"
        os.sched_yield()


def open_descriptors() -> int:
    """Return how many are open, without the garbage of the tests before, which may go any time."""
    gc.collect()
    return psutil.Process().num_fds()


def open_epolls() -> int:
    """Return how many descriptors of epoll(7) are open: gRPC's threads close others at any time."""
    gc.collect()
    links = (link(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return list(links).count("anon_inode:[eventpoll]")


def link(path: str) -> str:
    """Return where a link leads, "" if there is none any more."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
