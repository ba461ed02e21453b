"""/readyz and `node doctor`: a list that is pushed counts only while something confirms it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from netutil.agent.admin.diagnostics import Diagnostics
from netutil.agent.lifecycle import Agent
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.sources.base import ConfirmTiming, unavailable

from tests.support.fakes.pushing_source import PushingSource, made
from tests.support.waiting import until

TIMING = ConfirmTiming(quiet_seconds=0.02, jitter_seconds=0, max_unconfirmed_seconds=0.2)


def agent_with(pods: PodDirectory) -> Agent:
    """An agent of which no more is there than what readiness looks at."""
    agent = object.__new__(Agent)
    agent._stopping = asyncio.Event()
    kubernetes = SimpleNamespace(pods=pods)
    agent._components = SimpleNamespace(kubernetes=kubernetes)  # type: ignore[assignment]
    return agent


async def test_an_agent_with_an_unconfirmed_list_is_not_ready() -> None:
    source = PushingSource(TIMING)
    pods = PodDirectory(source, 10)
    agent = agent_with(pods)
    assert agent._ready().startswith("no pod list yet")
    source.lists = [unavailable("It is overloaded.", "there", "Wait for it.")] * 3
    source.push(made("web"))
    await pods.refresh()
    assert agent._ready() == ""
    await until(lambda: agent._ready() != "")
    assert agent._ready() == (
        "the pod list is not confirmed: For 0 s no list has confirmed that the stream of pods is"
        " complete. The last try failed: It is overloaded. Wait for it."
    )
    await until(lambda: agent._ready() == "")
    await pods.close()


def doctor_of(pods: PodDirectory, *, believes_anybody: bool = False) -> Diagnostics:
    """A doctor that can look at nothing but the pod list."""
    doctor = object.__new__(Diagnostics)
    doctor._pods = pods
    installation = SimpleNamespace(believes_anybody=believes_anybody)
    doctor._installation = installation  # type: ignore[assignment]
    return doctor


async def test_the_doctor_says_when_the_list_was_confirmed_or_why_not() -> None:
    source = PushingSource(TIMING)
    pods = PodDirectory(source, 10)
    source.push(made("web"))
    check = await doctor_of(pods)._pod_list()
    assert (check.outcome, check.found) == ("ok", "1 pod from there, confirmed 0 s ago")
    source.lists = [unavailable("It is overloaded.", "there", "Wait for it.")] * 3
    await until(lambda: pods.unconfirmed is not None)
    check = await doctor_of(pods)._pod_list()
    assert check.outcome == "failed"
    assert "It is overloaded." in check.found
    assert "the last list is of" in check.found
    assert check.remedy == "Wait for it."
    await pods.close()


async def test_an_unverified_kubelet_is_no_warning_for_another_source() -> None:
    """--pod-source auto with --kubelet-verify none, where the Pods API is asked."""
    source = PushingSource()
    pods = PodDirectory(source, 10)
    source.push(made("web"))
    assert (await doctor_of(pods, believes_anybody=True)._pod_list()).outcome == "ok"
    await pods.close()
