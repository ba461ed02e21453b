"""As many connections are accepted as there are file descriptors for."""

from __future__ import annotations

import resource

import pytest
from netutil.agent.limits.descriptors import (
    MAX_FIRST_PROCESSES,
    MAX_HELD_FILES,
    affordable_connections,
    affordable_first_processes,
    affordable_held_cgroups,
    affordable_held_files,
    affordable_namespaces,
    descriptors_for,
)


class Limit:
    """RLIMIT_NOFILE of a process: its soft and its hard value."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.now

    def setrlimit(self, which: int, to: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        assert to[0] <= to[1] == self.now[1]
        self.now = to


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> Limit:
    limit = Limit(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    return limit


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = limited(monkeypatch, 1024, 1_000_000)
    assert affordable_connections(4096, 0) == 4096
    assert limit.now == (1_000_000, 1_000_000)


def test_all_that_are_wanted_are_affordable_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hard = descriptors_for(500, 0)
    limited(monkeypatch, hard, hard)
    assert affordable_connections(500, 0) == 500
    assert caplog.text == ""


def test_fewer_are_accepted_where_descriptors_are_few(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited(monkeypatch, 1024, 1024)
    affordable = affordable_connections(4096, 0)
    assert descriptors_for(affordable, 0) <= 1024 < descriptors_for(affordable + 1, 0)
    assert f"at most {affordable} connections" in caplog.text


def test_one_connection_is_accepted_at_any_descriptor_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited(monkeypatch, 16, 16)
    assert affordable_connections(4096, 0) == 1
    assert "--max-connections" in caplog.text


def test_no_limit_limits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert affordable_connections(1_000_000, 0) == 1_000_000


def test_held_files_have_what_connections_and_namespaces_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hard = descriptors_for(500, 20) + 300
    limited(monkeypatch, hard, hard)
    assert affordable_held_files(500, 20, 0, 0) == 300
    assert affordable_held_files(500, 20, 10, 0) == 280
    assert affordable_held_files(500, 20, 10, 30) == 220


def test_held_files_have_nothing_where_the_connections_need_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(monkeypatch, 1024, 1024)
    namespaces = affordable_namespaces(1024)
    assert affordable_held_files(affordable_connections(4096, namespaces), namespaces, 0, 0) < 4
    limited(monkeypatch, 16, 16)
    assert affordable_held_files(1, 1, 0, 2) == 0


def test_held_files_are_limited_where_descriptors_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert affordable_held_files(4096, 1024, 2048, 512) == MAX_HELD_FILES
    limited(monkeypatch, 1_000_000, 1_000_000)
    assert affordable_held_files(4096, 1024, 2048, 512) == MAX_HELD_FILES


def test_held_cgroups_have_a_quarter_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = descriptors_for(500, 20) + 800
    limited(monkeypatch, hard, hard)
    assert affordable_held_cgroups(2048, 500, 20) == 100
    assert affordable_held_cgroups(50, 500, 20) == 50
    limited(monkeypatch, 16, 16)
    assert affordable_held_cgroups(2048, 1, 1) == 0
    limited(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert affordable_held_cgroups(2048, 4096, 1024) == 2048


def test_first_processes_have_an_eighth_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = descriptors_for(500, 20) + 800
    limited(monkeypatch, hard, hard)
    assert affordable_first_processes(500, 20, 0) == 50
    assert affordable_first_processes(500, 20, 100) == 37
    limited(monkeypatch, 16, 16)
    assert affordable_first_processes(1, 1, 0) == 2
    for limit in (1_000_000, resource.RLIM_INFINITY):
        limited(monkeypatch, limit, limit)
        assert affordable_first_processes(4096, 1024, 2048) == MAX_FIRST_PROCESSES


def test_namespaces_that_are_held_leave_connections_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(monkeypatch, 1024, 1024)
    namespaces = affordable_namespaces(1024)
    assert namespaces == 32
    affordable = affordable_connections(4096, namespaces)
    assert affordable > 200
    assert descriptors_for(affordable, namespaces) <= 1024


def test_the_wanted_namespaces_are_held_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 1024, 1_000_000)
    assert affordable_namespaces(1024) == 1024
    limited(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert affordable_namespaces(10**9) == 10**9
