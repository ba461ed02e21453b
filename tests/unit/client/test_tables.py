from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from netutil.client.cli.render.tables import Style, Table, render
from netutil.client.text import columns, cut, escaped, harmless

TEXT = st.text(st.characters(), max_size=30)
PRINTABLE = TEXT.map(escaped)


@given(TEXT)
def test_an_escaped_text_is_one_printable_line(text: str) -> None:
    assert escaped(text).isprintable()


@given(TEXT)
def test_an_escaped_text_can_be_read_back(text: str) -> None:
    printed = escaped(text)
    as_literal = "".join(
        char if char.isascii() else char.encode("unicode_escape").decode() for char in printed
    )
    assert as_literal.encode().decode("unicode_escape") == text


@given(TEXT)
def test_a_harmless_text_has_no_control_but_newline_and_tab(text: str) -> None:
    kinds = {unicodedata.category(char) for char in harmless(text) if char not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_ordinary_text_stays_as_it_is() -> None:
    assert escaped("/usr/bin:Grüße 日本") == "/usr/bin:Grüße 日本"
    assert harmless("two\n\tlines \\n") == "two\n\tlines \\n"


def test_escapes_are_those_of_python() -> None:
    assert escaped("a\nb\r\t\\\x1b\u202e\U000e0001") == r"a\nb\r\t\\\x1b\u202e\U000e0001"


def test_wide_and_combining_characters_take_their_columns() -> None:
    assert (columns("abc"), columns("日本"), columns("e\u0301")) == (3, 4, 1)


@given(PRINTABLE, st.integers(3, 40))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert columns(cut(text, width)) <= width
    if columns(text) <= width:
        assert cut(text, width) == text


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_columns_are_aligned_for_any_text(rows: list[tuple[str, str, str]]) -> None:
    marked = tuple((first, f"|{second}", f"|{third}") for first, second, third in rows)
    lines = render([Table("T", ("A", "|B", "|C"), marked)], Style()).split("\n")[1:-1]
    assert len(lines) == 1 + len(rows)
    for line, (first, second, _) in zip(lines, [("A", "|B", "|C"), *marked], strict=True):
        at_second = len(escaped(first)) + line[len(escaped(first)) :].index("|")
        at_third = (
            at_second + len(escaped(second)) + line[at_second + len(escaped(second)) :].index("|")
        )
        starts = [columns(line[:at_second]), columns(line[:at_third])]
        expected_first = max(columns("A"), *(columns(escaped(row[0])) for row in marked)) + 2
        expected_second = max(columns("|B"), *(columns(escaped(row[1])) for row in marked)) + 2
        assert starts == [expected_first, expected_first + expected_second]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), TEXT, st.booleans())
def test_a_table_has_no_control_character_but_its_own(
    rows: list[tuple[str, str]], note: str, bold: bool
) -> None:
    table = Table("T", ("A", "B"), tuple(rows), (note,))
    text = render([table], Style(bold=bold)).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert text.replace("\n", "").isprintable()
    assert text.count("\n") == len(rows) + 3


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.integers(1, 60))
def test_only_the_last_column_is_cut_to_the_width(rows: list[tuple[str, str]], width: int) -> None:
    lines = render([Table("T", (), tuple(rows))], Style(width=width)).split("\n")[1:-1]
    first = max(columns(escaped(name)) for name, _ in rows)
    for line, (name, _) in zip(lines, rows, strict=True):
        assert line.startswith(escaped(name))
        assert columns(line) <= max(width, first + 2 + 20)


def test_tables_are_separated_and_notes_follow() -> None:
    tables = [Table("ONE", ("A",), (("1",),), ("a note",)), Table("TWO", ("B",), ())]
    assert render(tables, Style()) == "ONE\nA\n1\n(a note)\n\nTWO\nB\n"


def test_a_terminal_gets_bold_titles_and_headers() -> None:
    text = render([Table("ONE", ("A",), (("1",),))], Style(bold=True))
    assert text == "\x1b[1mONE\x1b[0m\n\x1b[1mA\x1b[0m\n1\n"
