"""What of an error goes over the wire: always sendable, never too long, and never nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.errors import Denied, Exhausted, Reason, Unavailable
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.calls import Answering
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.status import cut, part_error, trailing_metadata
from netutil.agent.service.tracing import Tracing
from netutil.agent.service.unfinished import Unfinished, UnfinishedLimits
from netutil.v1alpha import netutil_pb2 as api

TRAILERS_OF_EVERY_CLIENT = 8 * 1024
ANY_TEXT = st.text(st.characters(), max_size=20_000)


class Context:
    """A call that is aborted by raising what it was aborted with."""

    class Aborted(Exception):
        pass

    def peer(self) -> str:
        return "unix-abstract:nobody"

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        raise Context.Aborted(code, details)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_a_status_fits_the_trailers_of_every_client(sentence: str, read: str, advice: str) -> None:
    error = Unavailable(Reason.POD_LIST_UNAVAILABLE, sentence, read=read, advice=advice)
    ((key, value),) = trailing_metadata(error)
    percent_encoded = 3 * len(cut(sentence).encode())
    base64_encoded = len(key) + len(value) * 4 // 3
    assert percent_encoded + base64_encoded < TRAILERS_OF_EVERY_CLIENT
    assert status_pb2.Status.FromString(value).message == cut(sentence)


@given(ANY_TEXT)
def test_a_cut_text_is_the_beginning_of_what_was_said(text: str) -> None:
    said = text.encode("utf-8", errors="backslashreplace").decode()
    assert said.startswith(cut(text))
    assert cut(text) == said or len(cut(text).encode()) > 700


@given(ANY_TEXT)
def test_an_error_of_a_part_can_be_sent_whatever_it_says(text: str) -> None:
    error = Denied(Reason.ENVIRONMENT_NOT_READABLE, text, read=text, advice=text)
    sent = api.PartError.FromString(part_error("env", error).SerializeToString())
    assert sent.sentence == cut(text)


def answering(unfinished: Unfinished, table: ConnectionTable) -> Answering:
    log = CallLog()
    refusals = Refusals(log, lambda *_: None, lambda *_: None, Tracing())
    return Answering(table, log, lambda *_: None, unfinished, refusals, Tracing())


async def test_a_bug_of_the_agent_is_answered_as_internal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, context = ConnectionTable(), Context()
    unfinished = Unfinished(UnfinishedLimits())
    connection = table.add("pod", None, None)
    monkeypatch.setattr(table, "of_grpc_peer", lambda _: connection)

    async def body(_: Connection) -> api.PodResponse:
        raise KeyError("surprise")

    with pytest.raises(Context.Aborted) as aborted:
        await answering(unfinished, table).answer("GetPod", context, body)  # type: ignore[arg-type]
    code, details = aborted.value.args
    assert code is grpc.StatusCode.INTERNAL and "GetPod" in details and "surprise" not in details
    assert "KeyError" in caplog.text


async def test_what_one_pod_leaves_unread_is_counted_until_it_is_taken() -> None:
    unfinished = Unfinished(UnfinishedLimits(calls_of_pod=2, bytes_of_pod=20_000))
    taken = asyncio.Event()

    async def call(pod_key: str, size_bytes: int) -> None:
        unfinished.begin(pod_key)
        unfinished.hold(pod_key, size_bytes)
        await taken.wait()

    calls = [("pod", 15_000), ("pod", 15_000), ("other", 30_000), ("pod", 0), ("pod", 0)]
    tasks = [asyncio.create_task(call(*one)) for one in calls]
    await asyncio.sleep(0)
    # The second was refused, and counts until its task has ended.
    assert (unfinished.calls, unfinished.bytes) == (3, 45_000)
    taken.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [one.reason if isinstance(one, Exhausted) else one for one in ended]
    assert refused == [
        None,
        Reason.TOO_MANY_UNREAD_ANSWERS,
        None,
        Reason.TOO_MANY_CALLS_OF_POD,
        Reason.TOO_MANY_CALLS_OF_POD,
    ]
    assert (unfinished.calls, unfinished.bytes) == (0, 0)
