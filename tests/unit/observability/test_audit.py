"""The audit log names how a call ended: refused, not found or failed."""

from __future__ import annotations

import logging

import pytest
from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from netutil.agent.identity.peer import Requester
from netutil.agent.observability.audit import Audit

REQUESTER = Requester(None, "uid", "c" * 64)
OUTCOMES: list[tuple[type[AgentError], str, str]] = [
    (PermissionDenied, "refused", "refused"),
    (Unauthenticated, "refused", "refused"),
    (ResourceExhausted, "refused", "refused"),
    (QuotaExceeded, "refused", "refused"),
    (NotFound, "not_found", "not found"),
    (FailedPrecondition, "failed", "failed"),
    (InvalidArgument, "failed", "failed"),
    (Unavailable, "failed", "failed"),
]


@pytest.mark.parametrize(("kind", "outcome", "verb"), OUTCOMES)
async def test_the_outcome_follows_the_kind_of_error(
    kind: type[AgentError], outcome: str, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[tuple[str, str, str]] = []
    audit = Audit(lambda *_: ("ns", "pod", "app"), lambda *one: counted.append(one), lambda: None)
    error = kind(Reason.VARIABLE_NOT_SET, "No such variable.")
    caplog.set_level(logging.INFO)
    for _ in range(6):
        audit.record_rejection("call", REQUESTER, "uid", "GetEnv", error)
    audit.close()
    assert counted == [(outcome, "call", "VARIABLE_NOT_SET")] * 6
    *lines, summary = caplog.records
    assert len(lines) == 5
    assert f"GetEnv {verb}: VARIABLE_NOT_SET: No such variable." in lines[0].getMessage()
    assert f"{verb} 1 times more for VARIABLE_NOT_SET" in summary.getMessage()
    events = [(one.audit["event"], one.audit["outcome"]) for one in (lines[0], summary)]  # type: ignore[attr-defined]
    assert events == [("error", outcome), ("errors", outcome)]
