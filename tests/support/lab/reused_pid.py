"""A process under a pid of one's choice: one that another process has just given back.

clone3(2) takes the number (`set_tid`, Linux 5.5). Winding /proc/sys/kernel/ns_last_pid back
instead would give the number to whichever process of the machine starts first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_CLONE3 = 435  # of every architecture: asm-generic/unistd.h
_FIELDS = (
    *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal"),
    *("stack", "stack_size", "tls", "set_tid", "set_tid_size"),
)


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in _FIELDS)


@contextmanager
def process_under(pid: int, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let a sleeping process have this pid until the end of the block.

    Raises AssertionError, with what the kernel said, if the pid is not available.
    """
    command = [sys.executable, "-I", "-S", __file__, str(pid)]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            said = parent.stdout.readline()
            assert said == "started\n", f"pid {pid}: {said}{parent.stdout.read()}"
            yield
        finally:
            parent.stdin.close()


def _clone_under(pid: int) -> int:
    """fork(2) to a chosen number. Only for a process of one thread."""
    wanted = ctypes.c_int(pid)
    arguments = _CloneArgs(
        exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1
    )
    # PyDLL keeps the interpreter's lock, which the new process needs.
    library = ctypes.PyDLL(None, use_errno=True)
    made = library.syscall(_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if made < 0:
        raise OSError(ctypes.get_errno(), f"clone3: {os.strerror(ctypes.get_errno())}")
    return int(made)


def _main() -> None:
    made = _clone_under(int(sys.argv[1]))
    if made == 0:
        os.execvp("sleep", ["sleep", "600"])  # noqa: S606
    try:
        print("started", flush=True)
        sys.stdin.read()
    finally:
        os.kill(made, signal.SIGKILL)
        os.waitpid(made, 0)


if __name__ == "__main__":
    _main()
