"""The rate of a stream's reads of the environment, which a workload can make expensive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import held_environment
from netutil.agent.collect.environment_collector import EnvironmentRead
from netutil.agent.collect.results import Allocated
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.messages.encode import Parts
from netutil.agent.watch.notifier import ChangeNotifier, Subscription
from netutil.agent.watch.stream import SnapshotStreams
from netutil.v1alpha import netutil_pb2 as api

_NO_LIST = Unavailable(Reason.POD_LIST_UNAVAILABLE, "No list.")
_CALLER = Caller(cast("Any", SimpleNamespace(pod_key="pod")), cast("Any", None), None, _NO_LIST)


class Enough(Exception):
    """Ends a stream."""


class FakeComponents:
    """The components below, as far as a stream needs them."""

    def __init__(self, devices: list[Unavailable | None]) -> None:
        self.read_count = self.snapshots = 0
        self._devices = devices

    async def identify(self, *_: object, **__: object) -> Caller:
        return _CALLER

    async def read_with_devices(self, *_: object) -> EnvironmentRead:
        error = self._devices[min(self.read_count, len(self._devices) - 1)]
        self.read_count += 1
        return error or held_environment(b"A=B\0"), Allocated(error=error)

    async def run_sized(self, _: str, make: Callable[[], Any], *__: object) -> Any:
        return make()

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[Subscription]:
        yield Subscription()

    async def follow(self, subject: Subscription, caller: Caller) -> None:
        subject.notify()


async def streamed(
    components: FakeComponents, snapshots: int, *, environment: bool
) -> list[EnvironmentRead]:
    """Return the parts of each snapshot."""
    given: list[EnvironmentRead] = []

    async def everything(
        caller: Caller,
        pid: str,
        seconds: float,
        *,
        environment: EnvironmentRead | None = None,
        each_cpu: bool = True,
    ) -> Parts:
        del caller, pid, seconds, each_cpu
        assert environment is not None
        given.append(environment)
        pod = api.PodResponse(name=str(len(given)))
        return {
            "pod": pod,
            **({"environment": api.EnvResponse()} if environment[0] is not None else {}),
        }

    async def send(_: object) -> None:
        if len(given) == snapshots:
            raise Enough

    callers = cast("CallerResolver", components)
    collector = SimpleNamespace(environments=components, reads=components)
    gathering = cast("Collector", collector)
    watching = cast("ChangeNotifier", components)
    watches = SnapshotStreams(callers, gathering, watching, lambda: None, FairScheduler())
    connection = Connection("pod")
    with pytest.raises(Enough):
        async with asyncio.timeout(20):
            await watches.run(
                connection, api.WatchRequest(environment=environment), send, everything
            )
    return given


@pytest.mark.parametrize("environment", [True, False])
async def test_a_first_snapshot_reads_the_environment_once(environment: bool) -> None:
    components = FakeComponents([None])
    ((found, allocated),) = await streamed(components, 1, environment=environment)
    assert components.read_count == 1
    assert found is not None and allocated == Allocated()


async def test_later_snapshots_read_it_only_where_it_is_asked_for() -> None:
    components = FakeComponents([None])
    given = await streamed(components, 3, environment=False)
    assert [found is None for found, _ in given] == [False, True, True]
    assert components.read_count == 1
    components = FakeComponents([None])
    await streamed(components, 3, environment=True)
    assert components.read_count == 3


async def test_devices_that_could_not_be_read_are_read_again() -> None:
    components = FakeComponents([_NO_LIST, None])
    given = await streamed(components, 3, environment=False)
    assert [allocated.error for _, allocated in given] == [_NO_LIST, None, None]
    assert components.read_count == 2
