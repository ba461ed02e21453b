"""Work that takes long on a thread gives up its CPU between pieces."""

from __future__ import annotations

import os
import subprocess
from types import ModuleType

import pytest
from netutil.agent import yield_cpu as module
from netutil.agent.facts import environment as facts
from netutil.agent.parsers import environment as parsers
from netutil.agent.yield_cpu import in_pieces, yield_cpu


def counted(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return an entry for each time that the module yields the CPU from now on."""
    yields: list[None] = []
    monkeypatch.setattr(module, "yield_cpu", lambda: yields.append(None))
    return yields


def block(entries: int, characters: int) -> bytes:
    return b"".join(b"V%d=%s\0" % (number, b"x" * characters) for number in range(entries))


def test_a_thread_that_yields_goes_on() -> None:
    yield_cpu()


def test_in_pieces_yields_the_cpu_after_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    yields = counted(module, monkeypatch)
    assert list(in_pieces(range(5))) == [0, 1, 2, 3, 4]
    assert len(yields) == 5


@pytest.mark.parametrize(("entries", "least"), [(3, 0), (9, 7)])
def test_a_large_environment_is_read_in_pieces(
    entries: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields = counted(facts, monkeypatch)
    characters = 120_000 if least else 100
    variables = {f"V{number}": "x" * characters for number in range(entries)}
    with subprocess.Popen(["sleep", "60"], env=variables, executable="/bin/sleep") as process:
        directory = os.open(f"/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert len(facts.read_block(directory)) >= entries * characters
        finally:
            process.kill()
            os.close(directory)
    assert (least or len(yields)) <= len(yields)
    assert bool(yields) == bool(least)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(block(20, 100), 0, id="small"),
        pytest.param(block(8, 70_000), 7, id="long values"),
        pytest.param(block(2_000, 1), 3, id="many values"),
    ],
)
def test_a_large_environment_is_parsed_in_pieces(
    content: bytes, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields = counted(parsers, monkeypatch)
    parsers.parse_environment(content)
    assert len(yields) == expected
