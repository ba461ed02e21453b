"""Asks the agent as a pod does. Run as a program, by root, in a container of the lab.

Its arguments are the uid to ask under, and `visible` or `hidden`: whether the
process is dumpable. Prints a JSON object of the questions that failed, each with its reason.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from functools import partial

from netutil.client import Client
from netutil.client.errors import NetUtilError

_SET_DUMPABLE = 4  # linux/prctl.h


def main() -> None:
    uid, kind = int(sys.argv[1]), sys.argv[2]
    _load()
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After setuid, which takes it away.
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, int(kind == "visible"))
    print(json.dumps(_failed()))


def _load() -> None:
    """Import all that a call needs, now: another user may not be able to read this tree."""
    try:
        with Client("/nonexistent.sock", timeout_seconds=0.1) as agent:
            agent.pod()
    except NetUtilError:
        pass


def _failed() -> dict[str, str]:
    failed: dict[str, str] = {}
    with Client() as agent:
        questions: dict[str, Callable[[], object]] = {
            "pod": agent.pod,
            "networks": agent.network_status,
            "CPUs": agent.cpu,
            "CPU topology": partial(agent.cpu, topology=True),
            "interfaces": agent.interfaces,
            "huge pages": agent.hugepages,
            "own environment": agent.environment,
            # The container's first process, under the same ids.
            "CPUs of another process": partial(agent.cpu, pid=1),
            "environment of another process": partial(agent.environment, pid=1),
        }
        for name, question in questions.items():
            try:
                question()
            except NetUtilError as error:
                failed[name] = f"{error.code}: {error}"
    return failed


if __name__ == "__main__":
    main()
