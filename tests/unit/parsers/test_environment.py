"""From the NUL-separated block of /proc/<pid>/environ to variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import Reason, ResourceExhausted
from netutil.agent.parsers.environment import (
    MAX_ENTRIES,
    MAX_ENTRY_BYTES,
    Environment,
    parse_environment,
)

CASES = {
    "two variables": (b"HOME=/root\0TERM=xterm\0", {"HOME": "/root", "TERM": "xterm"}),
    "every = but the first is of the value": (b"OPTS=a=b==c=\0", {"OPTS": "a=b==c="}),
    "newlines are of the value": (
        b"LINES=one\ntwo\r\n\0B=2\0",
        {"LINES": "one\ntwo\r\n", "B": "2"},
    ),
    "a newline may be in a name": (b"A\nB=1\0", {"A\nB": "1"}),
    "an empty value is set": (b"EMPTY=\0", {"EMPTY": ""}),
    "a name may be empty": (b"=value\0", {"": "value"}),
    "only an equals sign": (b"=\0", {"": ""}),
    "of two the first counts": (b"PATH=/bin\0PATH=/evil\0", {"PATH": "/bin"}),
    "an empty first one counts too": (b"A=\0A=2\0", {"A": ""}),
    "without a final NUL": (b"A=1\0B=2", {"A": "1", "B": "2"}),
    "NULs between": (b"\0\0A=1\0\0\0B=2\0\0", {"A": "1", "B": "2"}),
    "an empty block": (b"", {}),
    "nothing but NULs": (b"\0" * 4096, {}),
    "UTF-8 of all lengths": (
        "V=\u00e9\u20ac\U0001f600\0".encode(),
        {"V": "\u00e9\u20ac\U0001f600"},
    ),
    "control characters": (b"ESC=\x1b[31m\x07\0", {"ESC": "\x1b[31m\x07"}),
    "names differ by case": (b"a=1\0A=2\0", {"a": "1", "A": "2"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_block_gives_its_variables_and_nothing_is_lost(case: str) -> None:
    block, variables = CASES[case]
    assert parse_environment(block) == Environment(variables, 0, 0)


def test_a_value_of_100_kib_is_kept_whole() -> None:
    value = "0123456789abcde=" * 6400
    assert parse_environment(f"BIG={value}\0".encode()).variables == {"BIG": value}


class Unsplit(bytes):
    """A block that is not split at once. What is cut from it is ordinary bytes."""

    def split(self, *_: object) -> list[bytes]:
        raise AssertionError("a call that takes as long as the block is large")


@pytest.mark.parametrize("length", [1, 7, 1000, MAX_ENTRY_BYTES - len("V00000=")])
def test_a_large_block_is_split_in_slices_without_a_loss(length: int) -> None:
    count = min(MAX_ENTRIES, 3 * 1024 * 1024 // length)
    variables = {f"V{number:05}": "x" * length for number in range(count)}
    entries = [f"{name}={value}".encode() for name, value in variables.items()]
    for block in (b"\0".join(entries), b"\0\0".join([b"", *entries, b"", b""])):
        assert parse_environment(Unsplit(block)) == Environment(variables, 0, 0)


def test_a_large_block_of_nothing_has_no_variables() -> None:
    assert parse_environment(Unsplit(b"\0" * (1024 * 1024))) == Environment({}, 0, 0)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"A=" + b"x" * (MAX_ENTRY_BYTES - 1), id="one that is longer by a byte"),
        pytest.param(b"A=1\0B=" + b"x" * (8 * 1024 * 1024), id="one that is far longer"),
        pytest.param(b"x" * (MAX_ENTRY_BYTES + 1) + b"\0A=1", id="no variable"),
        pytest.param(b"A=1\0" * (MAX_ENTRIES + 1), id="too many of one name"),
        pytest.param(b"a\0" * (MAX_ENTRIES + 1), id="too many without a name"),
    ],
)
def test_an_impossible_environment_is_refused(block: bytes) -> None:
    with pytest.raises(ResourceExhausted) as refusal:
        parse_environment(block)
    assert refusal.value.reason is Reason.ENVIRONMENT_TOO_LARGE


def test_entries_without_an_equals_sign_are_skipped_and_counted() -> None:
    found = parse_environment(b"no sign\0A=1\0nginx: master process\0")
    assert found == Environment({"A": "1"}, replaced_entries=0, skipped_entries=2)


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        pytest.param(b"BAD=\xff", "BAD", "\ufffd", id="no start byte"),
        pytest.param(b"BAD=a\xc3", "BAD", "a\ufffd", id="cut sequence"),
        pytest.param(b"BAD=\xe9t\xe9", "BAD", "\ufffdt\ufffd", id="Latin-1"),
        pytest.param(b"BAD=\xed\xa0\x80", "BAD", "\ufffd" * 3, id="encoded surrogate"),
        pytest.param(b"BAD=\xc0\xaf", "BAD", "\ufffd" * 2, id="overlong slash"),
        pytest.param(b"N\xffME=good", "N\ufffdME", "good", id="in the name"),
    ],
)
def test_invalid_utf_8_is_replaced_and_counted(entry: bytes, name: str, value: str) -> None:
    found = parse_environment(entry + b"\0OK=1\0")
    assert found == Environment({name: value, "OK": "1"}, replaced_entries=1, skipped_entries=0)


def test_an_entry_counts_once_however_many_bytes_are_replaced() -> None:
    assert parse_environment(b"A=\xff\xff\xff\0B=\xff\0").replaced_entries == 2


def test_a_non_utf_8_entry_without_equals_sign_is_skipped_too() -> None:
    assert parse_environment(b"\xff\xfe\0") == Environment({}, 0, 1)


characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]))


@given(st.dictionaries(names, st.text(characters)), st.booleans())
def test_a_processs_environment_comes_back(variables: dict[str, str], final: bool) -> None:
    block = "\0".join(f"{name}={value}" for name, value in variables.items())
    found = parse_environment((block + "\0" * final).encode())
    assert found == Environment(variables, 0, 0)


@given(st.lists(st.one_of(st.binary(), st.builds(bytes.__add__, st.binary(), st.just(b"=\xff")))))
def test_any_bytes_give_valid_text_and_account_for_each_entry(
    entries: list[bytes],
) -> None:
    block = b"\0".join(entries)
    found = parse_environment(block)
    parts = [part for part in block.split(b"\0") if part]
    for name, value in found.variables.items():
        assert "=" not in name
        assert "\0" not in (name + value).encode().decode()
    assert found.skipped_entries == sum(b"=" not in part for part in parts)
    assert len(found.variables) <= len(parts) - found.skipped_entries
    assert found.replaced_entries <= len(parts) - found.skipped_entries
