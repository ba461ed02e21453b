"""A caller that nothing has to be waited for is identified at once, and is the same caller."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.parsers.cgroup import identify
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import decode_pod_list

from tests.support.fakes.kubelet import list_json, pod_json
from tests.unit.pods.test_directory import ID, UID, Source

POD_UID = f"{UID[:8]}-{UID[8:12]}-{UID[12:16]}-{UID[16:20]}-{UID[20:]}"
REFRESH_SECONDS = 10.0


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Known:
    """Callers of a directory whose list has the test's own process as container `app`."""

    def __init__(self, process: PinnedProcess, source: Source) -> None:
        self.clock, self.source = Clock(), source
        source.pods = decode_pod_list(list_json(pod_json("web", POD_UID, {"app": ID})))
        self.pods = PodDirectory(source, REFRESH_SECONDS, self.clock)
        self.callers = CallerResolver(CgroupTree({}), self.pods, ReadPool(threads=1))
        cgroups = identify(f"0::/kubepods/pod{POD_UID}/{ID}\n")
        peer = Peer(Credentials(process.pid, 0, 0), process, cgroups, UID)
        self.connection = Connection(UID, peer)

    def connection_in(self, container_id: str) -> Connection:
        assert self.connection.peer is not None
        cgroups = identify(f"0::/kubepods/pod{POD_UID}/{container_id}\n")
        return Connection(UID, replace(self.connection.peer, cgroups=cgroups))


@pytest.fixture
def own() -> Iterator[PinnedProcess]:
    process = pin_pid(os.getpid())
    yield process
    process.close()


@pytest.fixture
async def known(own: PinnedProcess) -> AsyncIterator[Known]:
    made = Known(own, Source())
    yield made
    await made.pods.close()


async def test_a_caller_is_known_at_once_when_a_fresh_list_names_it(known: Known) -> None:
    assert known.callers.identified(known.connection) is None, "there is no list yet"
    waited_for = await known.callers.identify(known.connection, 5, need_container=True)
    at_once = known.callers.identified(known.connection)
    assert at_once == waited_for
    assert at_once is not None and at_once.require_match().container_name == "app"


async def test_a_list_that_is_too_old_is_waited_for(known: Known) -> None:
    await known.callers.identify(known.connection, 5)
    known.clock.now += REFRESH_SECONDS - 0.1
    assert known.callers.identified(known.connection) is not None
    known.clock.now += 0.2
    assert known.callers.identified(known.connection) is None
    await known.callers.identify(known.connection, 5)
    assert (known.source.fetches, known.callers.identified(known.connection) is None) == (2, False)


async def test_a_container_without_a_name_is_left_to_identify(known: Known) -> None:
    await known.callers.identify(known.connection, 5)
    assert known.callers.identified(known.connection_in("e" * 64)) is None


async def test_a_start_without_a_listed_name_is_read_off_the_loop(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[int] = []

    def started_at(_: PinnedProcess) -> datetime:
        readers.append(threading.get_ident())
        return datetime.now(UTC)

    monkeypatch.setattr(PinnedProcess, "started_at", started_at)
    await known.callers.identify(known.connection, 5)
    first = len(readers)
    await known.callers.identify(known.connection, 5)
    assert len(readers) == first, "its name is listed"
    await known.callers.identify(known.connection_in("e" * 64), 5)
    assert len(readers) == first + 1
    assert threading.get_ident() not in readers


async def test_a_pod_that_is_only_remembered_is_left_to_identify(known: Known) -> None:
    await known.callers.identify(known.connection, 5)
    known.source.pods = decode_pod_list(
        list_json(pod_json("other", f"{7:032x}", {"app": f"{7:064x}"}))
    )
    known.clock.now += 2  # a list may be asked for again
    await known.pods.refresh()
    assert known.callers.identified(known.connection) is None
    assert (await known.callers.identify(known.connection, 5)).require_match().is_remembered


async def test_refused_and_unknown_callers_are_left_to_identify(known: Known) -> None:
    await known.callers.identify(known.connection, 5)
    error = PermissionDenied(Reason.NOT_A_POD, "No pod.")
    assert known.callers.identified(Connection(UID, known.connection.peer, error)) is None
    assert known.callers.identified(Connection(UID)) is None


async def test_a_process_that_has_ended_is_left_to_identify() -> None:
    ended = await asyncio.create_subprocess_exec("sleep", "60")
    process = pin_pid(ended.pid)
    known = Known(process, Source())
    await known.callers.identify(known.connection, 5)
    assert known.callers.identified(known.connection) is not None
    ended.kill()
    await ended.wait()
    assert known.callers.identified(known.connection) is None
    process.close()
    await known.pods.close()


async def test_a_cgroup_without_a_pod_uid_is_left_to_identify(known: Known) -> None:
    await known.callers.identify(known.connection, 5)
    peer: Any = known.connection.peer
    cgroups = structs.replace(peer.cgroups, pod_uid=None)
    assert known.callers.identified(Connection(UID, replace(peer, cgroups=cgroups))) is None
