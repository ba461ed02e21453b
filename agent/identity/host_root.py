"""Callers outside of pods that are proven to be root of the host.

`netutil-agent --check` outside of the agent's pod is one, and so is an operator's tool. No pod can
be taken for one: what is not proven stays among the unidentified peers.
"""

from __future__ import annotations

import os

from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.process import Credentials, PinnedProcess

HOST_ROOT = "host-root"
"""The quota key of all processes of the host's root outside of pods."""
_NAMESPACES = ("user", "pid")


def is_host_root(credentials: Credentials, process: PinnedProcess, tree: CgroupTree) -> bool:
    """Return whether a process that is no pod's is one of the host's root.

    Such a process connected as uid 0 and is alive, is in the agent's own user and PID namespaces
    (hostPID), and none of its cgroups has the name of a pod or a container, at any depth. Raises
    `Unauthenticated` if the process has exited, `QuotaExceeded` or OSError for a shortage.
    """
    if credentials.uid != 0:
        return False
    proven = tree.shows_no_pod(process.cgroup_text()) and _shares_namespaces(process)
    process.ensure_alive()
    return proven


def _shares_namespaces(process: PinnedProcess) -> bool:
    def read(thread: int) -> bool:
        return all(
            os.path.samestat(os.stat(f"ns/{name}", dir_fd=thread), os.stat(f"/proc/self/ns/{name}"))
            for name in _NAMESPACES
        )

    try:
        return process.through_running_thread(read)
    except (PermissionError, FileNotFoundError):
        # An agent without CAP_SYS_PTRACE, a security module; a kernel without such namespaces.
        return False
