from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.client import NetUtilError, NotFound, Unavailable
from netutil.client.rpc.status import Details, error_from_status, parse_details

from tests.support.fakes.agent import Refusal


@dataclass
class Failure:
    status: grpc.StatusCode
    sentence: str | None = "a sentence"
    metadata: Any = None

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return self.sentence

    def trailing_metadata(self) -> Any:
        return self.metadata


def test_a_failure_without_details_keeps_code_and_sentence() -> None:
    error = error_from_status(Failure(grpc.StatusCode.NOT_FOUND))
    assert isinstance(error, NotFound)
    assert (str(error), error.reason, error.advice) == ("a sentence [NOT_FOUND]", "", "")


def test_a_failure_without_a_sentence_names_the_code() -> None:
    error = error_from_status(Failure(grpc.StatusCode.DATA_LOSS, sentence=""))
    assert type(error) is NetUtilError
    assert str(error) == "the agent answered DATA_LOSS [DATA_LOSS]"


def test_a_call_that_a_stopping_server_cancelled_is_asked_again() -> None:
    """As UNAVAILABLE is: found by a rolling update under a real kubelet."""
    error = error_from_status(Failure(grpc.StatusCode.CANCELLED))
    assert isinstance(error, Unavailable)
    assert error.code == "CANCELLED"


def test_error_info_of_another_domain_is_passed_over() -> None:
    refusal = Refusal(grpc.StatusCode.INTERNAL, reason="THEIRS", domain="example.com")
    assert parse_details(refusal.serialized()) == Details()


def test_a_pause_is_read_also_beside_foreign_details() -> None:
    refusal = Refusal(
        grpc.StatusCode.UNAVAILABLE, reason="X", domain="example.com", retry_after_seconds=1.5
    )
    assert parse_details(refusal.serialized()) == Details(retry_after_seconds=1.5)


def test_details_are_found_among_other_metadata() -> None:
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, reason="R", read="/proc", advice="Wait.")
    metadata = (("x", "y"), ("grpc-status-details-bin", refusal.serialized()))
    error = error_from_status(Failure(grpc.StatusCode.UNAVAILABLE, metadata=metadata))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.read, error.advice) == ("R", "/proc", "Wait.")


@given(st.binary(max_size=200))
def test_malformed_details_are_no_failure_of_their_own(serialized: bytes) -> None:
    assert isinstance(parse_details(serialized), Details)


@pytest.mark.parametrize("cut_off", range(1, 20))
def test_details_that_are_cut_off_are_passed_over(cut_off: int) -> None:
    serialized = Refusal(grpc.StatusCode.UNAVAILABLE, reason="R").serialized()
    assert parse_details(serialized[:-cut_off]).reason == ""
