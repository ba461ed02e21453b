"""The status of an error on the wire: always valid, bounded and never empty."""

from __future__ import annotations

from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import PermissionDenied, Reason, Unavailable
from netutil.agent.messages.status import part_error, trailing_metadata, truncate_utf8
from netutil.v1alpha import netutil_pb2 as api

TRAILERS_OF_EVERY_CLIENT = 8 * 1024
ANY_TEXT = st.text(st.characters(), max_size=20_000)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_a_status_fits_the_trailers_of_every_client(sentence: str, read: str, advice: str) -> None:
    error = Unavailable(Reason.POD_LIST_UNAVAILABLE, sentence, read=read, advice=advice)
    ((key, value),) = trailing_metadata(error)
    percent_encoded = 3 * len(truncate_utf8(sentence).encode())
    base64_encoded = len(key) + len(value) * 4 // 3
    assert percent_encoded + base64_encoded < TRAILERS_OF_EVERY_CLIENT
    assert status_pb2.Status.FromString(value).message == truncate_utf8(sentence)


@given(ANY_TEXT)
def test_a_cut_text_is_the_beginning_of_what_was_said(text: str) -> None:
    said = text.encode("utf-8", errors="backslashreplace").decode()
    assert said.startswith(truncate_utf8(text))
    assert truncate_utf8(text) == said or len(truncate_utf8(text).encode()) > 700


@given(ANY_TEXT)
def test_an_error_of_a_part_can_be_sent_whatever_it_says(text: str) -> None:
    error = PermissionDenied(Reason.ENVIRONMENT_NOT_READABLE, text, read=text, advice=text)
    sent = api.PartError.FromString(part_error("environment", error).SerializeToString())
    assert sent.message == truncate_utf8(text)
