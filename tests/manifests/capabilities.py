"""Tries the agent's operations on other processes with the capabilities of this process.

Run as a program under setpriv(1), with a JSON object of pids and paths as its
argument; prints a JSON object: the bit mask of the capabilities in force
(`capabilities`), and of each call that failed its name, and why (`failed`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from netutil.agent.errors import AgentError
from netutil.agent.facts.environment import read_block
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.namespaces import NS_GET_PARENT, shares_pid_namespace
from netutil.agent.identity.pidfd import choose_pin, peer_credentials, pin_by_start_time, pin_pid
from netutil.agent.identity.process import Credentials
from netutil.agent.identity.ptrace import read_as_caller


def main() -> None:
    given: dict[str, str] = json.loads(sys.argv[1])
    pid = {name: int(value) for name, value in given.items() if value.isdigit()}
    failed: dict[str, str] = {}

    def attempt(call: str, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, AgentError) as error:
            failed[call] = str(error)

    for name in ("user", "hidden", "root"):
        process = pin_pid(pid[name])
        attempt(f"status of {name}", process.status)
        attempt(f"stat of {name}", process.stat)
        attempt(f"cgroup of {name}", process.cgroup_text)
        attempt(f"environ of {name}", partial(read_block, process.directory()))
        attempt(f"ns of {name}", partial(shares_pid_namespace, process, process))
    attempt("NS_GET_PARENT", lambda: parent_namespace(pid["nested"]))
    for asking in ("user", "bare", "root"):
        other = pin_pid(pid[f"{asking}'s other"])
        caller = pin_pid(pid[asking])
        status = caller.status()
        credentials = Credentials(caller.pid, status.uids[1], status.gids[1])
        ask = partial(read_as_caller, caller, credentials, other, read_block)
        attempt(f"ask as {asking}", ask)
    attempt("pin a peer", lambda: pin_a_peer(given["directory"]))
    attempt("take a socket over", lambda: take_over(given["directory"]))
    attempt("connect to a socket of root, 0600", lambda: connect(given["socket"]))
    attempt("cgroup mounts", lambda: read_cgroup_tree("/"))
    print(json.dumps({"capabilities": in_force(), "failed": failed}))


def in_force() -> int:
    """The bit mask of this process's effective capabilities, which are all that it could have."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").split("\n")
    fields = dict(line.split(":\t", 1) for line in lines if line.startswith("Cap"))
    assert fields["CapEff"] == fields["CapPrm"] == fields["CapBnd"]
    return int(fields["CapEff"], 16)


def parent_namespace(pid: int) -> None:
    """As for a caller in a deeper namespace than the process it names."""
    namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(namespace, NS_GET_PARENT))
    finally:
        os.close(namespace)


def pin_a_peer(directory: str) -> None:
    """Both ways, whatever this kernel offers."""
    path = str(Path(directory, "peer.sock"))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        connection, _ = listener.accept()
        with connection:
            number = peer_credentials(connection).pid
            for pin in (choose_pin()[0], pin_by_start_time):
                pin(connection, number).close()
    Path(path).unlink()


def take_over(directory: str) -> None:
    path = Path(directory, "net.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        temporary = path.with_suffix(".new")
        listener.bind(str(temporary))
        temporary.rename(path)
    path.unlink()


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


if __name__ == "__main__":
    main()
