"""The kernel's notation for sets of CPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.cpulist import MAX_NUMBER, format_cpu_list, parse_cpu_list

numbers = st.sets(st.integers(0, MAX_NUMBER), max_size=200)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("\n", ()),
        ("0", (0,)),
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("8,0-1,1-2", (0, 1, 2, 8)),
        ("0-15:2/4", (0, 1, 4, 5, 8, 9, 12, 13)),
        ("0-9:4/8,20", (0, 1, 2, 3, 8, 9, 20)),
        ("0-7:0/4", ()),
    ],
)
def test_a_list_is_its_numbers_in_order(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text, read="online") == cpus


@pytest.mark.parametrize(
    "text",
    [
        "0-4000000000",
        "0-9999",
        "99999999999999999999",
        "3-0",
        "0-3:2/0",
        "0-3:3/2",
        "5:1/2",
        "-1",
        "0,,1",
        "0 1",
        "a",
        "0x1",
        "(null)",
        "\u0663",
        "0-",
        ",",
    ],
)
def test_an_invalid_list_is_refused_with_the_file(text: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        parse_cpu_list(text, read="/sys/devices/system/cpu/online")
    assert refused.value.reason is Reason.CPU_LIST_MALFORMED
    assert refused.value.read == "/sys/devices/system/cpu/online"


@pytest.mark.parametrize(
    ("cpus", "text"),
    [((), ""), ((5,), "5"), ((3, 2, 1), "1-3"), ((0, 1, 3, 3), "0-1,3"), ((0, 2), "0,2")],
)
def test_numbers_are_written_in_the_shortest_form(cpus: tuple[int, ...], text: str) -> None:
    assert format_cpu_list(cpus) == text


@given(numbers)
def test_a_written_list_is_read_again(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus), read="") == tuple(sorted(cpus))


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 40), st.integers(0, 40))
def test_a_group_is_the_first_of_every_so_many(
    first: int, more: int, group: int, used: int
) -> None:
    used = min(used, group)
    text = f"{first}-{first + more}:{used}/{group}"
    expected = [n for n in range(first, first + more + 1) if (n - first) % group < used]
    assert list(parse_cpu_list(text, read="")) == expected


@given(st.text(max_size=40) | st.from_regex(r"[0-9,:/-]{1,30}", fullmatch=True))
def test_any_text_is_a_bounded_list_or_the_typed_error(text: str) -> None:
    try:
        cpus = parse_cpu_list(text, read="")
    except FailedPrecondition:
        return
    assert list(cpus) == sorted(set(cpus))
    assert all(0 <= cpu <= MAX_NUMBER for cpu in cpus)
