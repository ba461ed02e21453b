"""Connections leave nothing behind: thousands here, a million in `make soak-connections`."""

from __future__ import annotations

from pathlib import Path

from tests.soak.connections import Held, engines, faults, sockets

ENGINES, SOCKETS = 20_000, 2_000


def test_engines_leave_nothing_behind() -> None:
    found = list(engines(ENGINES))
    assert [one.connections for one in found] == [2_000, 10_000, 20_000]
    assert not faults(found)


async def test_real_connections_leave_nothing_behind(tmp_path: Path) -> None:
    found = [one async for one in sockets(SOCKETS, tmp_path)]
    assert [one.connections for one in found] == [200, 1_000, 2_000]
    assert not faults(found)


def test_one_object_for_each_connection_is_a_fault() -> None:
    before, after = Held(2_000, 100_000, 2**25), Held(20_000, 118_000, 2**25)
    assert faults([before, after]) == ["18000 more blocks after 20000 connections"]


def test_two_hundred_bytes_a_connection_are_a_leak() -> None:
    before, after = Held(100_000, 0, 2**25), Held(1_000_000, 0, 2**25 + 200 * 900_000)
    assert faults([before, after]) == ["180000000 more bytes after 1000000 connections"]
