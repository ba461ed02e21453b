"""Processes whose environment cannot be read at once.

`python -m tests.support.attacks.slow_environ NAME` is one of them.
Each prints "ready" and goes on until it is killed. `forking` copies an address space of thousands
of mappings again and again, and holds its memory lock meanwhile. `dropped` hands the page with its
environment over to userfaultfd(2) and throws it away: a reader waits for a page that never
arrives, or gets the error that there is no page.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys
import time
from pathlib import Path

_MAPPINGS = 10_000
_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
# linux/userfaultfd.h
_UFFD_API, _UFFDIO_API, _UFFDIO_REGISTER = 0xAA, 0xC018AA3F, 0xC020AA00
_REGISTER_MISSING = 1
_MADV_DONTNEED = 4
_ENVIRONMENT_START, _ENVIRONMENT_END = 49, 50  # of /proc/<pid>/stat, from 0


def forking() -> None:
    # Neighbours of the same kind would be joined to one mapping, hence every second one is another.
    size = mmap.PAGESIZE
    kept = []
    for number in range(_MAPPINGS):
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if number % 2 else 0)
        kept.append(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection))
    print("ready", flush=True)
    while True:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)


def dropped() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[n - 2]) for n in (_ENVIRONMENT_START, _ENVIRONMENT_END))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    last = end // mmap.PAGESIZE * mmap.PAGESIZE
    assert first < last, "no page is the environment's alone"
    handler = libc.syscall(_SYS_USERFAULTFD[os.uname().machine], os.O_CLOEXEC)
    if handler < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    fcntl.ioctl(handler, _UFFDIO_API, struct.pack("QQQ", _UFFD_API, 0, 0))
    asked = struct.pack("QQQQ", first, last - first, _REGISTER_MISSING, 0)
    fcntl.ioctl(handler, _UFFDIO_REGISTER, asked)
    done = libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)
    if done:
        raise OSError(ctypes.get_errno(), "madvise")
    print("ready", flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    {"forking": forking, "dropped": dropped}[sys.argv[1]]()
