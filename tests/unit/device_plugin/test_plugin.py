"""The device plugin stays registered with the kubelet, and never ends the agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.agent.admin import checks
from netutil.agent.backoff import Backoff
from netutil.agent.device_plugin import plugin as plugin_module
from netutil.agent.device_plugin import registration
from netutil.agent.device_plugin.plugin import (
    MAX_CALLS,
    MAX_REQUEST_BYTES,
    DevicePlugin,
    PluginSettings,
    PluginState,
)
from netutil.agent.device_plugin.service import DEVICES, MAX_CONTAINERS
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2 as v1beta1

from tests.support.fakes.device_plugins import KubeletDouble
from tests.support.waiting import until

RESOURCE = "example.com/netutil"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
async def kubelet(directory: Path) -> AsyncIterator[KubeletDouble]:
    double = KubeletDouble(directory)
    await double.start()
    yield double
    await double.stop()


@contextlib.asynccontextmanager
async def running(
    directory: Path, has_socket: Callable[[], bool] = lambda: True
) -> AsyncIterator[PluginState]:
    """A plugin that runs in the block."""
    state = PluginState(RESOURCE)
    settings = PluginSettings(RESOURCE, str(directory), "/run/netutil")
    task = asyncio.create_task(DevicePlugin(settings, state, has_socket).run())
    try:
        yield state
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)


class Recorded(Backoff):
    """Waits for a moment only, and keeps how long it would have been."""

    def __init__(self, pauses: list[float], *limits: float) -> None:
        super().__init__(*limits)
        self._pauses = pauses

    def pause(self) -> float:
        self._pauses.append(super().pause())
        return 0.001


def sockets(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "kubelet.sock")


@pytest.mark.parametrize("connects_first", [True, False], ids=["since 1.25", "before 1.25"])
async def test_the_plugin_registers(directory: Path, connects_first: bool) -> None:
    kubelet = KubeletDouble(directory, connects_first=connects_first)
    await kubelet.start()
    async with running(directory) as state:
        devices = await kubelet.registered()
        await until(lambda: state.registered)
        (request,) = kubelet.requests
        assert (request.version, request.resource_name) == ("v1beta1", RESOURCE)
        assert sockets(directory) == [request.endpoint]
        assert not request.options.pre_start_required
        assert len({one.ID for one in devices}) == DEVICES
        assert {one.health for one in devices} == {"Healthy"}
        assert all(len(one.ID) <= 63 for one in devices)
        assert (state.registrations, state.failures, state.problem) == (1, 0, "")
    await kubelet.stop()


async def test_a_container_gets_the_mount(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory) as state:
        devices = await kubelet.registered()
        asked = v1beta1.ContainerAllocateRequest(devices_ids=[devices[7].ID])
        answer = await kubelet.stub().Allocate(
            v1beta1.AllocateRequest(container_requests=[asked, asked])
        )
        mount = v1beta1.Mount(
            container_path="/etc/netutil", host_path="/run/netutil", read_only=True
        )
        given = v1beta1.ContainerAllocateResponse(mounts=[mount])
        assert list(answer.container_responses) == [given, given]
        assert state.allocations.containers == 2


async def test_all_devices_in_one_request_are_answered(
    directory: Path, kubelet: KubeletDouble
) -> None:
    async with running(directory):
        devices = await kubelet.registered()
        asked = v1beta1.ContainerAllocateRequest(devices_ids=[one.ID for one in devices])
        request = v1beta1.AllocateRequest(container_requests=[asked])
        answer = await kubelet.stub().Allocate(request)
        assert len(answer.container_responses) == 1


async def test_too_many_containers_are_refused(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory) as state:
        await kubelet.registered()
        asked = [v1beta1.ContainerAllocateRequest()] * MAX_CONTAINERS
        most = v1beta1.AllocateRequest(container_requests=asked)
        assert len((await kubelet.stub().Allocate(most)).container_responses) == MAX_CONTAINERS
        asked.append(v1beta1.ContainerAllocateRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await kubelet.stub().Allocate(v1beta1.AllocateRequest(container_requests=asked))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert state.allocations.containers == MAX_CONTAINERS


async def test_a_large_request_is_refused(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory):
        await kubelet.registered()
        asked = v1beta1.ContainerAllocateRequest(devices_ids=["x" * MAX_REQUEST_BYTES])
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await kubelet.stub().Allocate(v1beta1.AllocateRequest(container_requests=[asked]))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_many_streams_are_refused(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory):
        await kubelet.registered()
        streams = [kubelet.stub().ListAndWatch(v1beta1.Empty()) for _ in range(MAX_CALLS - 1)]
        for stream in streams:
            await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await kubelet.stub().Allocate(v1beta1.AllocateRequest())
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for stream in streams:
            stream.cancel()


async def test_the_plugin_needs_no_other_method(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory):
        await kubelet.registered()
        options = await kubelet.stub().GetDevicePluginOptions(v1beta1.Empty())
        assert options == v1beta1.DevicePluginOptions()


async def test_only_root_may_connect(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory):
        await kubelet.registered()
        (name,) = sockets(directory)
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


async def test_the_umask_is_restored(directory: Path, kubelet: KubeletDouble) -> None:
    before = os.umask(0o027)
    try:
        async with running(directory):
            await kubelet.registered()
            assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


async def test_the_plugin_registers_after_a_restart(
    directory: Path, kubelet: KubeletDouble
) -> None:
    async with running(directory) as state:
        for restarts in range(3):
            await kubelet.registered()
            await until(lambda: state.registered)
            assert state.registrations == restarts + 1
            await kubelet.stop()
            await until(lambda: not state.registered)
            await kubelet.start()
        await kubelet.registered()
        await until(lambda: state.registered)
        assert len(sockets(directory)) == 1
    names = [request.endpoint for request in kubelet.requests]
    assert len(set(names)) == len(names)


async def test_an_ended_stream_is_registered_again(directory: Path, kubelet: KubeletDouble) -> None:
    """kubernetes#127803: the end of one plugin ends the stream of another of that resource."""
    async with running(directory) as state:
        await kubelet.registered()
        await until(lambda: state.registered)
        await kubelet.disconnect(kubelet.endpoints[0])
        await kubelet.registered()
        await until(lambda: state.registrations == 2)


@pytest.mark.parametrize(("stable_seconds", "failures_in_a_row"), [(0.0, 1), (60.0, 3)])
async def test_a_lasting_registration_resets_the_pauses(
    directory: Path,
    kubelet: KubeletDouble,
    monkeypatch: pytest.MonkeyPatch,
    stable_seconds: float,
    failures_in_a_row: int,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(plugin_module, "_STABLE_SECONDS", stable_seconds)
    monkeypatch.setattr(plugin_module, "Backoff", lambda *limits: Recorded(pauses, *limits))
    async with running(directory) as state:
        for number in range(3):
            await kubelet.registered()
            await until(lambda: state.registered)
            await kubelet.disconnect(kubelet.endpoints[0])
            await until(lambda: len(pauses) == number + 1)  # noqa: B023 - awaited at once
    assert pauses[-1] <= 2.0 ** (failures_in_a_row - 1)
    assert pauses[-1] >= 0.5 * 2.0 ** (failures_in_a_row - 1)


async def test_a_plugin_that_is_cancelled_as_it_starts_ends(
    directory: Path, kubelet: KubeletDouble, caplog: pytest.LogCaptureFixture
) -> None:
    settings = PluginSettings(RESOURCE, str(directory), "/run/netutil")
    task = asyncio.create_task(DevicePlugin(settings, PluginState(RESOURCE), lambda: True).run())
    while not sockets(directory):  # noqa: ASYNC110 - its server starts in the next iteration
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    assert sockets(directory) == []
    assert "unexpected" not in caplog.text


async def test_a_plugin_that_is_cancelled_twice_stops(
    directory: Path, kubelet: KubeletDouble
) -> None:
    settings = PluginSettings(RESOURCE, str(directory), "/run/netutil")
    task = asyncio.create_task(DevicePlugin(settings, PluginState(RESOURCE), lambda: True).run())
    await kubelet.registered()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # while the server stops
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    assert sockets(directory) == []
    await until(lambda: not kubelet.endpoints)


@pytest.mark.parametrize("method", ["start", "stop"])
async def test_a_server_that_hangs_is_given_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def hangs(*_arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(plugin_module, "SERVER_SECONDS", 0.1)
    monkeypatch.setattr(type(grpc.aio.server()), method, hangs)
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert "did not start or stop the device plugin's server within 0.1 s" in state.problem


async def test_a_removed_socket_is_made_again(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory) as state:
        await kubelet.registered()
        await until(lambda: state.registered)
        (name,) = sockets(directory)
        (directory / name).unlink()
        await kubelet.registered()
        await until(lambda: state.registrations == 2)
        assert sockets(directory) != [name]


async def test_a_kubelet_that_starts_later_is_awaited(directory: Path) -> None:
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert state.problem == "The kubelet's device plugin socket does not exist."
        assert not state.registered
        kubelet = KubeletDouble(directory)
        await kubelet.start()
        await kubelet.registered()
        await until(lambda: state.registered)
        assert state.problem == ""
        await kubelet.stop()


async def test_a_dead_socket_of_the_kubelet_is_explained(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "kubelet.sock"))
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert "listens on the kubelet's device plugin socket" in state.problem
        assert state.remedy


async def test_a_refusal_is_explained(directory: Path, kubelet: KubeletDouble) -> None:
    kubelet.refusal = (grpc.StatusCode.UNKNOWN, "the ResourceName is invalid")
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert state.problem == (
            "The kubelet refused the registration with UNKNOWN: the ResourceName is invalid."
        )
        assert state.failures == 1
        assert sockets(directory) == []
        kubelet.refusal = None
        await kubelet.registered()


async def test_a_kubelet_that_does_not_call_is_explained(
    directory: Path, kubelet: KubeletDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_module, "WATCH_SECONDS", 0.1)
    kubelet.connects = False
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert "did not call the plugin within 0.1 s" in state.problem
        assert not state.registered


async def test_a_long_refusal_is_cut(directory: Path, kubelet: KubeletDouble) -> None:
    kubelet.refusal = (grpc.StatusCode.UNKNOWN, "no\n" * 1000)
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert len(state.problem) < 400
        assert state.problem.isprintable()


async def test_a_kubelet_that_hangs_is_explained(
    directory: Path, kubelet: KubeletDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "REGISTER_SECONDS", 0.2)
    kubelet.hangs = True
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert state.problem == "The kubelet did not answer the registration within 0.2 s."
        assert sockets(directory) == []


async def test_a_large_answer_is_refused(directory: Path, kubelet: KubeletDouble) -> None:
    kubelet.answer_bytes = 64 * 1024 + 1
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert "RESOURCE_EXHAUSTED" in state.problem


async def test_a_failure_is_tried_again_after_a_growing_pause(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(plugin_module, "Backoff", lambda *limits: Recorded(pauses, *limits))
    async with running(directory) as state:
        await until(lambda: state.failures >= 8)
    assert pauses[0] <= 1.0
    assert 15.0 <= max(pauses) <= 30.0


async def test_a_missing_directory_is_explained(tmp_path: Path) -> None:
    async with running(tmp_path / "absent") as state:
        await until(lambda: bool(state.problem))
        assert "cannot make its socket in" in state.problem
        assert "--device-plugin-dir" in state.remedy


async def test_no_server_is_made_without_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    make = grpc.aio.server

    def counted(*arguments: Any, **options: Any) -> grpc.aio.Server:
        made.append(options)
        return make(*arguments, **options)

    monkeypatch.setattr(grpc.aio, "server", counted)
    (tmp_path / "file").touch()
    for directory in (tmp_path / "absent", tmp_path / "file", tmp_path / ("d" * 200)):
        async with running(directory) as state:
            await until(lambda: bool(state.problem))
            assert "cannot make its socket in" in state.problem
    assert made == []


async def test_a_bug_does_not_end_the_plugin(
    directory: Path, kubelet: KubeletDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        monkeypatch.undo()
        raise ValueError

    monkeypatch.setattr(plugin_module, "register", broken)
    async with running(directory) as state:
        await until(lambda: bool(state.problem))
        assert state.problem == "The device plugin failed in an unforeseen way: ValueError."
        await kubelet.registered()


async def test_the_log_has_a_reason_once(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_module, "_MAX_PAUSE_SECONDS", 0.01)
    with caplog.at_level(logging.INFO, "netutil.agent.device_plugin.plugin"):
        async with running(directory) as state:
            await until(lambda: state.failures >= 5)
    assert len(caplog.records) == 1
    assert "does not exist" in caplog.text


async def test_an_agent_without_the_pods_socket_waits(
    directory: Path, kubelet: KubeletDouble
) -> None:
    has_socket = False
    async with running(directory, lambda: has_socket) as state:
        await until(lambda: bool(state.problem))
        assert kubelet.requests == []
        assert state.failures == 0
        has_socket = True
        await kubelet.registered()


async def test_an_agent_waits_without_back_off(
    directory: Path, kubelet: KubeletDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that gets the pods' socket back registers at once."""
    monkeypatch.setattr(plugin_module, "CHECK_SECONDS", 0.01)
    checks_made = 0

    def has_socket() -> bool:
        nonlocal checks_made
        checks_made += 1
        return checks_made > 20

    async with running(directory, has_socket):
        await kubelet.registered(15)


async def test_two_agents_hand_over(directory: Path, kubelet: KubeletDouble) -> None:
    newest = "first"
    async with running(directory, lambda: newest == "second") as second:
        async with running(directory, lambda: newest == "first") as first:
            await kubelet.registered()
            newest = "second"
            await kubelet.registered()
            await until(lambda: second.registered)
            assert first.registered
            assert len(sockets(directory)) == 2
        await until(lambda: len(sockets(directory)) == 1)
        assert second.registered


async def test_an_update_survives_a_confused_kubelet(
    directory: Path, kubelet: KubeletDouble
) -> None:
    """kubernetes#127803: the end of the old agent's plugin ends the new agent's registration."""
    kubelet.confuses_plugins = True
    newest = "first"
    async with running(directory, lambda: newest == "second") as second:
        async with running(directory, lambda: newest == "first"):
            await kubelet.registered()
            newest = "second"
            await kubelet.registered()
            await until(lambda: second.registered)
        await kubelet.registered()
        await until(lambda: second.registrations == 2)
        assert second.registered
        assert len(kubelet.endpoints) == 1


async def test_sockets_of_killed_agents_are_removed(
    directory: Path, kubelet: KubeletDouble
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "netutil.sock.0123abcd"))
    (directory / "kubelet_internal_checkpoint").touch()
    async with running(directory):
        await kubelet.registered()
        names = sockets(directory)
        assert "netutil.sock.0123abcd" not in names
        assert "kubelet_internal_checkpoint" in names


async def test_nothing_is_left_in_the_directory(directory: Path, kubelet: KubeletDouble) -> None:
    async with running(directory) as state:
        await kubelet.registered()
    assert sockets(directory) == []
    assert not state.registered


class TestCheck:
    """The line of `netutil node doctor`."""

    def test_an_agent_without_the_plugin_has_no_line(self) -> None:
        assert checks.device_plugin(PluginState()) == ()

    def test_a_registered_plugin_is_ok(self) -> None:
        state = PluginState(RESOURCE, registered=True)
        state.allocations.containers = 2
        (found,) = checks.device_plugin(state)
        assert found.outcome == "ok"
        assert found.found == f"{RESOURCE}, mounted in 2 containers since the agent's start"

    def test_a_plugin_without_a_kubelet_is_a_warning(self) -> None:
        (found,) = checks.device_plugin(PluginState(RESOURCE, problem="It is so.", remedy="Do it."))
        assert (found.outcome, found.remedy) == ("warning", "Do it.")
        assert found.found == f"{RESOURCE}: It is so."

    def test_a_plugin_that_has_not_tried_is_a_warning(self) -> None:
        (found,) = checks.device_plugin(PluginState(RESOURCE))
        assert found.outcome == "warning"
