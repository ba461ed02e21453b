"""Hostile calls leave little in the log and the metrics, and nothing of other pods."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.security.stage import Stage, stage
from tests.support.lab.observing import needs_lab
from tests.support.nodes.client_driver import EVERYTHING, SECRET, Call, asked
from tests.support.nodes.measures import metrics_text

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-traces")]
FORGED = "2026-01-01T00:00:00.000Z INFO    agent: all is well"
CALLS = 400
LINES_PER_SECOND = 10


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


def test_refusals_do_not_fill_the_log(on: Stage) -> None:
    before = len(on.agent.stderr_text().splitlines())
    started = time.time()
    calls: list[Call] = [("GetEnv", {"pid": "x"})] * CALLS
    asked(on.hostile, *calls)
    seconds = int(time.time()) - int(started) + 1
    lines = on.agent.stderr_text().splitlines()[before:]
    assert len(lines) <= LINES_PER_SECOND * seconds
    assert lines


def test_a_caller_forges_no_log_line_and_controls_no_terminal(on: Stage) -> None:
    asked(
        on.hostile, ("GetEnv", {"pid": f"\n{FORGED}"}), ("GetEnv", {"pid": "\x1b[2J\x9b2J\u2028"})
    )
    log = on.agent.stderr_text()
    assert not [line for line in log.splitlines() if line.startswith(FORGED)]
    assert not {"\x1b", "\x9b", "\u2028"} & set(log)


def test_logs_and_metrics_hold_no_secret_and_metrics_no_pod(on: Stage) -> None:
    asked(on.victim, *EVERYTHING)
    metrics = metrics_text(on.agent)
    assert SECRET not in metrics + on.agent.stderr_text()
    for name in (
        "victim",
        "telco",
        on.victim.pod.uid,
        on.victim.pod.uid.replace("-", ""),
        on.victim.id,
    ):
        assert name not in metrics
