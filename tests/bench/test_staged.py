"""A stage of the bench leaves out what it says, or does not start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent import rooms as room
from netutil.agent.service.netutil import NetUtil
from netutil.v1alpha import netutil_pb2 as api

from bench import staged


def test_what_a_stage_replaces_is_there() -> None:
    assert vars(room)["NetUtil"] is NetUtil
    assert callable(NetUtil._answer)


def test_what_is_not_there_is_not_replaced() -> None:
    """The servicer had moved to another module, and the stage measured the whole agent."""
    with pytest.raises(AttributeError):
        staged.put(SimpleNamespace(), "NetUtil", None)


async def test_the_stage_of_identity_identifies_and_gives_what_is_kept() -> None:
    kept, identified = api.PodResponse(name="kept"), []

    async def answer(_: Any, method: str, context: Any, body: Any, **more: Any) -> Any:
        identified.append((method, context, more))
        return await body("caller")

    given = staged.identified_only({"GetPod": kept}, answer)
    netutil: Any = None
    assert await given(netutil, "GetPod", "context", None, need_container=True) is kept
    assert identified == [("GetPod", "context", {"need_container": True})]
