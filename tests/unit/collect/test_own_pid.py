"""A PID in a request that is the connector's own costs no second identification."""

from __future__ import annotations

import os
from typing import Any

import pytest
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import Unauthenticated
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import Credentials
from netutil.agent.parsers.cgroup import identify
from netutil.agent.pods.directory import PodDirectory

PATH = f"/kubepods/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b/{'4c1f' * 16}"
NOTHING: Any = None


class CountedReads(ReadPool):
    """Counts what is read for a pod."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.count = 0

    async def run(self, pod_key: str, read: Any, what: str, share: Any = None) -> Any:
        self.count += 1
        return await super().run(pod_key, read, what, share)


async def test_the_connector_s_own_pid_is_looked_up_once() -> None:
    reads, cgroups = CountedReads(), identify(f"0::{PATH}\n")
    pods: PodDirectory = NOTHING
    callers = CallerResolver(CgroupTree({}), pods, reads)
    own = pin_pid(os.getpid())
    peer = Peer(Credentials(own.pid, 0, 0), own, cgroups, "pod")
    caller = Caller(peer, cgroups, NOTHING, NOTHING)
    try:
        for _ in range(3):
            found, where = await callers.process(caller, str(os.getpid()))
            assert (found.pid, where) == (own.pid, cgroups)
            found.close()
        assert reads.count == 1
    finally:
        own.close()
    with pytest.raises(Unauthenticated):
        await callers.process(caller, str(os.getpid()))
