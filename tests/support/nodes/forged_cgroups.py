"""Cgroups that a user makes below a delegated cgroup, under names of the user's choice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.lab.cgroups import find_hierarchies
from tests.support.processes import become, process


@contextmanager
def process_in_own_cgroup(user: int, *names: str) -> Iterator[int]:
    """The pid of a user's process in a cgroup of these names, each below the one before."""
    top = find_hierarchies()[0].directory / f"netutil-forged-{os.getpid()}"
    inside = top.joinpath(*names)
    script = (
        f"open({str(top / 'cgroup.procs')!r}, 'w').write('0')\n"
        f"{become(user, user)}\nos.makedirs({str(inside)!r})\n"
        f"open({str(inside / 'cgroup.procs')!r}, 'w').write('0')"
    )
    top.mkdir()
    try:
        for path in (top, top / "cgroup.procs", top / "tasks"):
            if path.exists():
                os.chown(path, user, user)
        with process(script) as forger:
            yield forger.pid
            forger.kill()
            forger.wait()
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)
