"""/readyz: a list that is pushed counts only while something confirms it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from netutil.agent.daemon import Agent
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.source import ConfirmTiming, unavailable

from tests.pods.streams import PushingSource, made, until

TIMING = ConfirmTiming(quiet_seconds=0.02, jitter_seconds=0, max_unconfirmed_seconds=0.2)


def agent_with(pods: PodDirectory) -> Agent:
    """An agent of which no more is there than what readiness looks at."""
    agent = object.__new__(Agent)
    agent._stopping = asyncio.Event()
    agent._rooms = SimpleNamespace(pods=pods)  # type: ignore[assignment]
    return agent


async def test_an_agent_is_not_ready_while_nothing_confirms_the_pushed_list() -> None:
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
