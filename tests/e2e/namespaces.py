"""A node's place on this machine: namespaces of its own, and nothing left when it ends.

A command runs as on a machine of its own: own mounts (an empty /run, /var/lib and /var/log),
own network, own processes; only the cgroups are this machine's, below one cgroup that is
removed afterwards. When its first process dies, by whatever cause, the kernel kills all
that it started, unmounts all that it mounted and removes its interfaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.e2e import node_init
from tests.support.lab.cgroups import Cgroups
from tests.support.lab.ownership import is_left, new_name

NODE_ADDRESS = "192.0.2.10"  # RFC 5737: for documentation, in no network
TOP = Path("/var/tmp")
# A SIGKILL of this process ends the place as well: prctl(2), PR_SET_PDEATHSIG.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig=KILL")
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child=KILL")


def run(command: Sequence[str], *, environment: dict[str, str], timeout_seconds: float) -> int:
    """Run a command in a fresh place and return its exit code; 124 if it took too long.

    The variable NETUTIL_NODE names the cgroup that is the node's own.
    """
    with _place() as (directory, name):
        init = {
            "directory": str(directory),
            "address": NODE_ADDRESS,
            "hostname": "e2e",
            "command": list(command),
        }
        environment = {**os.environ, **environment, "NETUTIL_NODE": name}
        script = [sys.executable, "-I", "-S", node_init.__file__, json.dumps(init)]
        command = [*_DIE_WITH_PARENT, *_UNSHARE, *script]
        with subprocess.Popen(command, env=environment) as process:
            return _ended(process, timeout_seconds)


def _ended(process: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """Wait. Ctrl-C reaches the command too, from the terminal; the second one kills it."""
    deadline, interrupted = time.monotonic() + timeout_seconds, False
    try:
        while True:
            try:
                return process.wait(deadline - time.monotonic())
            except KeyboardInterrupt:
                interrupted, deadline = True, min(deadline, time.monotonic() + 20)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
        return 124
    finally:
        if interrupted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _place() -> Iterator[tuple[Path, str]]:
    """A directory and a cgroup of one name; first what a killed run left is removed."""
    name = new_name()
    directory = TOP / name
    cgroups = Cgroups(name)
    cgroups.remove_stale()
    for entry in filter(is_left, TOP.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # another run clears up at the same time
            shutil.rmtree(entry)
    directory.mkdir(mode=0o755)
    try:
        cgroups.make("")
        yield directory, name
    finally:
        cgroups.remove()
        shutil.rmtree(directory)
