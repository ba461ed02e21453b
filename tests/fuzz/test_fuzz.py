"""The short form: each target with a few mutations of its seeds, the same in each run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from tests.fuzz import first_bytes
from tests.fuzz.growth import Repeated, cuts, is_too_slow, slowdown
from tests.fuzz.mutation import inputs
from tests.fuzz.registry import targets
from tests.fuzz.target import Target

INPUTS, SLOW_INPUTS = 120, 40
TARGETS = targets()


@pytest.fixture(scope="module", autouse=True)
def _no_front_stays() -> Iterator[None]:
    yield
    first_bytes.close()


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_of_what_is_real_is_a_finding(name: str) -> None:
    target = TARGETS[name]
    for data in islice(inputs(target, 1), SLOW_INPUTS if target.slow else INPUTS):
        target.run(data)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.slow])
def test_time_grows_no_faster_than_the_input(name: str) -> None:
    target = TARGETS[name]
    for shape in cuts(target, 1, 1):
        # Asked again: a machine that is busy once is no finding.
        assert not (is_too_slow(target, shape) and is_too_slow(target, shape)), shape


def test_containers_in_containers_take_no_longer_than_others() -> None:
    """Each had its whole path built again, which took time that grows with the square."""
    shape = Repeated(b"0::/kubepods", b"/" + b"4c1f" * 16, b"\n")
    assert not (is_too_slow(TARGETS["cgroup"], shape) and is_too_slow(TARGETS["cgroup"], shape))


def _quadratic(data: bytes) -> int:
    return sum(data[:end].count(b"x") for end in range(len(data)))


def _careless(data: bytes) -> list[bytes]:
    if b"xx" in data:
        raise KeyError(data)
    return [data] * 10_000


@pytest.mark.parametrize("data", [b"xx", b"abc"], ids=["an error", "an answer"])
def test_an_unexpected_exception_is_a_finding(data: bytes) -> None:
    target = Target("careless", _careless, (b"x",))
    with pytest.raises((KeyError, AssertionError)):
        target.run(data)


def test_time_that_grows_with_the_square_is_seen() -> None:
    ratio = slowdown(Target("quadratic", _quadratic, (b"x",)), Repeated(b"", b"x" * 64, b""))
    assert ratio is not None
    assert ratio > 9
