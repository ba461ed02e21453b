"""The promises of both clients, tested over a real socket."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Any

import grpc
import pytest
from netutil.client import (
    AsyncClient,
    AsyncNodeClient,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NetUtilError,
    NodeClient,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from netutil.v1alpha import netutil_pb2

from tests.support.answers.core import HOSTILE, POD_UID
from tests.support.fakes.agent import FakeAgent, Refusal, serving

SYNC, ASYNC = "sync", "async"
pytestmark = pytest.mark.parametrize("kind", [SYNC, ASYNC])


async def ask(
    kind: str,
    path: str,
    method: str,
    *arguments: Any,
    timeout_seconds: float = 5.0,
    **options: Any,
) -> Any:
    """One question over a new client of that kind."""
    if kind == ASYNC:
        if method == "pods":
            async with AsyncNodeClient(path, timeout_seconds) as node:
                return await node.pods()
        async with AsyncClient(path, timeout_seconds) as client:
            return await getattr(client, method)(*arguments, **options)

    def in_thread() -> Any:
        if method == "pods":
            with NodeClient(path, timeout_seconds) as node:
                return node.pods()
        with Client(path, timeout_seconds) as client:
            return getattr(client, method)(*arguments, **options)

    return await asyncio.to_thread(in_thread)


async def test_each_question_has_its_answer(kind: str, agent: FakeAgent) -> None:
    assert (await ask(kind, agent.path, "cpu")).quota_cores == 1.5
    assert (await ask(kind, agent.path, "environment")).envs["OPTIONS"] == "a=b=c"
    assert (await ask(kind, agent.path, "variable", "HOSTILE")) == HOSTILE
    networks = await ask(kind, agent.path, "network_status")
    assert [network.interface for network in networks.status] == ["eth0", "net1"]
    assert (await ask(kind, agent.path, "pod")).uid == POD_UID
    assert (await ask(kind, agent.path, "pods")).pods[0].calls == 42
    interfaces = await ask(kind, agent.path, "interfaces")
    assert [interface.name for interface in interfaces.interfaces] == ["eth0", "net1"]
    assert (await ask(kind, agent.path, "hugepages")).containers[0].container_name == "app"
    assert (await ask(kind, agent.path, "resources")).exclusive_cpu_ids == (2, 3)
    assert (await ask(kind, agent.path, "all")).pod.uid == POD_UID


async def test_a_question_carries_pid_key_and_interface(kind: str, agent: FakeAgent) -> None:
    await ask(kind, agent.path, "cpu", 7)
    await ask(kind, agent.path, "variable", "PATH", 8)
    await ask(kind, agent.path, "network_status", "net1", 9)
    await ask(kind, agent.path, "pod")
    await ask(kind, agent.path, "interfaces", "net1", 10)
    await ask(kind, agent.path, "all", 11)
    cpu, environment, network_status, pod, interfaces, everything = agent.asked
    assert cpu.pid == "7"
    assert (environment.pid, environment.key) == ("8", "PATH")
    assert (network_status.pid, network_status.int) == ("9", "net1")
    assert pod.pid == ""
    assert (interfaces.pid, interfaces.int) == ("10", "net1")
    assert everything.pid == "11"
    assert not cpu.topology


async def test_the_topology_is_asked_for_by_name(kind: str, agent: FakeAgent) -> None:
    await ask(kind, agent.path, "cpu", topology=True)
    assert agent.asked[0].topology


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPrecondition),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, NetUtilError),
    ],
)
async def test_a_refusal_is_raised_at_once_with_the_agents_message(
    kind: str, agent: FakeAgent, code: grpc.StatusCode, error: type[NetUtilError]
) -> None:
    agent.refusals = deque([Refusal(code, reason="SOME_REASON", read="/proc/7", advice="Fix it.")])
    with pytest.raises(error) as caught:
        await ask(kind, agent.path, "cpu")
    assert type(caught.value) is error
    assert str(caught.value) == f"the agent's sentence [{caught.value.reason}]"
    assert caught.value.message == "the agent's sentence"
    assert caught.value.code == code.name
    assert caught.value.reason == "SOME_REASON"
    assert caught.value.read == "/proc/7"
    assert caught.value.advice == "Fix it."
    assert len(agent.asked) == 1


async def test_a_server_without_the_method_gets_advice_on_both_sockets(
    kind: str, agent: FakeAgent
) -> None:
    agent.refusals = deque([Refusal(grpc.StatusCode.UNIMPLEMENTED)])
    with pytest.raises(NetUtilError) as caught:
        await ask(kind, agent.path, "cpu")
    assert (caught.value.code, caught.value.reason) == ("UNIMPLEMENTED", "METHOD_MISSING")
    assert "operator socket" in caught.value.advice and "update the agent" in caught.value.advice


async def test_an_error_survives_a_pickle(kind: str, agent: FakeAgent) -> None:
    agent.refusals = deque([Refusal(grpc.StatusCode.NOT_FOUND, reason="R", advice="Fix it.")])
    with pytest.raises(NotFound) as caught:
        await ask(kind, agent.path, "cpu")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(copy), copy.code, copy.reason, copy.advice) == (
        *("the agent's sentence [R]", "NOT_FOUND", "R", "Fix it."),
    )


async def test_unavailable_is_asked_again_until_there_is_an_answer(
    kind: str, agent: FakeAgent
) -> None:
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, reason="POD_LIST_UNAVAILABLE")
    agent.refusals = deque([refusal, refusal])
    assert (await ask(kind, agent.path, "cpu")).cpuset == "0-3,8"
    assert len(agent.asked) == 3


async def test_the_pause_that_the_agent_asks_for_is_kept(kind: str, agent: FakeAgent) -> None:
    agent.refusals = deque(
        [Refusal(grpc.StatusCode.UNAVAILABLE, reason="R", retry_after_seconds=0.4)]
    )
    before = time.monotonic()
    await ask(kind, agent.path, "cpu")
    assert time.monotonic() - before >= 0.4


async def test_a_pause_beyond_the_deadline_is_not_begun(kind: str, agent: FakeAgent) -> None:
    agent.refusals = deque(
        [Refusal(grpc.StatusCode.UNAVAILABLE, reason="R", retry_after_seconds=60)]
    )
    before = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await ask(kind, agent.path, "cpu")
    assert time.monotonic() - before < 4
    assert caught.value.reason == "R"
    assert caught.value.retry_after_seconds == 60


async def test_a_slow_agent_ends_at_the_deadline_without_a_retry(
    kind: str, agent: FakeAgent
) -> None:
    agent.delay_seconds = 1.0
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await ask(kind, agent.path, "cpu", timeout_seconds=0.3)
    assert 0.25 < time.monotonic() - before < 0.95
    assert str(caught.value) == f"the agent at {agent.path} did not answer in 0.3 s [NO_ANSWER]"
    assert len(agent.asked) == 1


async def test_a_missing_socket_is_named_when_the_deadline_has_come(
    kind: str, socket_path: str
) -> None:
    before = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await ask(kind, socket_path, "cpu", timeout_seconds=1.5)
    assert 0.8 < time.monotonic() - before < 1.9
    assert str(caught.value) == f"socket {socket_path} does not exist [SOCKET_MISSING]"
    assert caught.value.reason == "SOCKET_MISSING"
    assert "mount the hostPath directory" in caught.value.advice


async def test_a_missing_directory_is_not_waited_for(kind: str, directory: str) -> None:
    before = time.monotonic()
    with pytest.raises(Unreachable, match=r"directory .*/none of the socket does not exist"):
        await ask(kind, f"{directory}/none/net.sock", "cpu", timeout_seconds=30)
    assert time.monotonic() - before < 10


async def test_a_path_that_is_too_long_gets_an_advice(kind: str, directory: str) -> None:
    with pytest.raises(Unreachable, match=r"longer than 107 bytes \[PATH_TOO_LONG\]"):
        await ask(kind, f"{directory}/{'x' * 120}", "cpu", timeout_seconds=5)


async def test_a_socket_without_a_listener_is_an_error_of_its_own(
    kind: str, socket_path: str
) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(socket_path)
    with pytest.raises(Unavailable, match="exists, but nothing accepts connections") as caught:
        await ask(kind, socket_path, "cpu", timeout_seconds=0.3)
    assert "restarting" in caught.value.advice


async def test_an_agent_that_hangs_up_is_an_error_of_its_own(kind: str, socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen()
        thread = threading.Thread(target=_hang_up, args=(listener,))
        thread.start()
        with pytest.raises(Unavailable) as caught:
            await ask(kind, socket_path, "cpu", timeout_seconds=0.5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert caught.value.reason == "CONNECTION_LOST"


def _hang_up(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


async def test_an_agent_that_starts_within_the_deadline_answers(
    kind: str, socket_path: str
) -> None:
    asking = asyncio.create_task(ask(kind, socket_path, "cpu"))
    await asyncio.sleep(0.4)
    with serving(FakeAgent(socket_path)):
        assert (await asking).cpuset == "0-3,8"


async def test_an_agent_that_restarts_is_found_again(kind: str, socket_path: str) -> None:
    async def ask_twice() -> None:
        async with AsyncClient(socket_path) as client:
            with serving(FakeAgent(socket_path)):
                await client.cpu()
            with serving(FakeAgent(socket_path)):
                await client.cpu()

    def ask_twice_in_thread() -> None:
        with Client(socket_path) as client:
            with serving(FakeAgent(socket_path)):
                client.cpu()
            with serving(FakeAgent(socket_path)):
                client.cpu()

    await (ask_twice() if kind == ASYNC else asyncio.to_thread(ask_twice_in_thread))


async def test_an_answer_larger_than_grpcs_own_limit_arrives(kind: str, agent: FakeAgent) -> None:
    agent.environment.envs["LONG"] = "x" * 5 * 1024 * 1024
    assert len(await ask(kind, agent.path, "variable", "LONG")) == 5 * 1024 * 1024


async def test_a_path_with_special_characters_is_reached(kind: str, directory: str) -> None:
    path = f"{directory}/a b%20#?.sock"
    with serving(FakeAgent(path)):
        assert (await ask(kind, path, "cpu")).cpuset == "0-3,8"


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("variable", ""),
        ("variable", "\udcff"),
        ("network_status", "\ud800"),
    ],
)
async def test_a_name_that_no_request_can_hold_is_refused_here(
    kind: str, agent: FakeAgent, method: str, name: str
) -> None:
    with pytest.raises(InvalidArgument):
        await ask(kind, agent.path, method, name)
    assert agent.asked == []


@pytest.mark.parametrize("timeout_seconds", [0, -1, float("nan"), float("inf")])
async def test_a_timeout_is_positive_and_finite(kind: str, timeout_seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        await ask(kind, "/tmp/x", "cpu", timeout_seconds=timeout_seconds)


async def test_a_closed_client_raises_its_own_error(kind: str, agent: FakeAgent) -> None:
    if kind == ASYNC:
        asynchronous = AsyncClient(agent.path)
        await asynchronous.cpu()
        await asynchronous.close()
        await asynchronous.close()
        with pytest.raises(RuntimeError, match="closed"):
            await asynchronous.cpu()
    else:
        client = Client(agent.path)
        client.cpu()
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.cpu()


async def test_a_client_is_not_used_after_a_fork(
    kind: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncClient(agent.path) as asynchronous:
        with Client(agent.path) as client:
            await asynchronous.cpu()
            await asyncio.to_thread(client.cpu)
            with monkeypatch.context() as forked:
                forked.setattr(os, "getpid", lambda: 4711)
                with pytest.raises(RuntimeError, match="make a new one after a fork"):
                    await (asynchronous.cpu() if kind == ASYNC else asyncio.to_thread(client.cpu))


async def test_two_clients_of_a_process_have_a_connection_each(kind: str, socket_path: str) -> None:
    script = f"""
import asyncio, os
from netutil.client import AsyncClient, Client
def connections():
    return sum(os.readlink(f"/proc/self/fd/{{fd}}").startswith("socket:") for fd in fds())
def fds():
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{fd}}")
            or os.path.islink(f"/proc/self/fd/{{fd}}")]
async def both():
    async with AsyncClient({socket_path!r}) as first, AsyncClient({socket_path!r}) as second:
        await first.cpu()
        before = connections()
        await second.cpu()
        print(connections() - before)
if {kind == ASYNC}:
    asyncio.run(both())
else:
    with Client({socket_path!r}) as first, Client({socket_path!r}) as second:
        first.cpu()
        before = connections()
        second.cpu()
        print(connections() - before)
"""
    with serving(FakeAgent(socket_path)):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True
        )
    assert done.stdout.strip() == "1", done.stderr


async def test_the_socket_comes_from_the_environment(
    kind: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETUTIL_SOCKET", agent.path)
    monkeypatch.setenv("NETUTIL_ADMIN_SOCKET", agent.path)
    if kind == ASYNC:
        async with AsyncClient() as asynchronous, AsyncNodeClient() as asynchronous_node:
            await asynchronous.cpu()
            await asynchronous_node.pods()
    else:
        with Client() as client, NodeClient() as node:
            await asyncio.to_thread(client.cpu)
            await asyncio.to_thread(node.pods)
    assert len(agent.asked) == 2


async def test_many_callers_share_a_client(kind: str, agent: FakeAgent) -> None:
    if kind == ASYNC:
        async with AsyncClient(agent.path) as asynchronous:
            answers = await asyncio.gather(*(asynchronous.cpu() for _ in range(20)))
    else:
        with Client(agent.path) as client:
            answers = await asyncio.gather(*(asyncio.to_thread(client.cpu) for _ in range(20)))
    assert {answer.cpuset for answer in answers} == {"0-3,8"}


async def test_a_server_that_omits_an_unset_variable_means_not_found(
    kind: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeAgent, "GetEnv", lambda *_: netutil_pb2.EnvResponse())
    with pytest.raises(NotFound, match="variable X is not set"):
        await ask(kind, agent.path, "variable", "X")
