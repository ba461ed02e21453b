"""The words of the repository and the names of its tests: scripts/words.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import words
from scripts.words import (
    MAX_NAME,
    NamedTest,
    files,
    findings,
    name_findings,
    named_tests,
    read_words,
    reference_findings,
    word_findings,
)

WORDS = read_words(
    'exceptions = ["POD_LOST"]\n[words]\n"lost" = "removed"\n"(?:found|finds) out" = "detects"\n'
)
KNOWN = frozenset({"test_a", "test_file"})


def test_this_repository_has_no_finding() -> None:
    assert words.main() == 0


@pytest.mark.parametrize("line", ["the lost pod", "Lost", "lost_pods", "podLost", "LOST = 1"])
def test_a_word_is_found_in_text_and_identifiers(line: str) -> None:
    (found,) = word_findings(f"first\n{line}\n", "a.py", WORDS)
    assert found.startswith("a.py:2: ") and found.endswith("use another word (removed)")


@pytest.mark.parametrize("line", ["POD_LOST", "reason == POD_LOST", "almost", "losts", "find out"])
def test_parts_of_words_and_exceptions_are_no_findings(line: str) -> None:
    assert word_findings(line, "a.py", WORDS) == []


def test_a_finding_has_the_advice_of_its_own_word() -> None:
    first, second = word_findings("It finds out what is lost.", "a.md", WORDS)
    assert first == "a.md:1: finds out: use another word (detects)"
    assert second == "a.md:1: lost: use another word (removed)"


@pytest.mark.parametrize(
    "text",
    [
        "exceptions = []\n[words]\n",
        'exceptions = []\n[words]\n"(a)b" = "c"\n',
        'exceptions = [\n[words]\n"a" = "b"\n',
    ],
)
def test_a_malformed_list_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"group of its own|Invalid|Unclosed|TOML|Expected"):
        read_words(text)


def test_a_list_without_a_table_is_an_error() -> None:
    with pytest.raises(KeyError):
        read_words("exceptions = []\n")


def test_tests_are_functions_of_modules_and_classes() -> None:
    source = (
        "def test_a(): ...\nclass T:\n    async def test_b(self): ...\n    def other(self): ...\n"
    )
    assert list(named_tests(source, "t.py")) == [
        NamedTest("t.py", 1, "test_a"),
        NamedTest("t.py", 3, "test_b"),
    ]


def test_only_a_name_past_the_limit_is_a_finding() -> None:
    longest = NamedTest("t.py", 1, "test_".ljust(MAX_NAME, "a"))
    (found,) = name_findings([longest, NamedTest("t.py", 7, longest.name + "a")])
    assert found.startswith("t.py:7: ") and "61 characters" in found


@pytest.mark.parametrize("first", ["what", "who", "of"])
def test_a_name_without_a_subject_is_a_finding(first: str) -> None:
    clause, sentence = f"test_{first}_is_kept_is_read", f"test_a_pod_{first}_is_kept"
    (found,) = name_findings([NamedTest("t.py", 1, clause), NamedTest("t.py", 5, sentence)])
    assert found == f"t.py:1: {clause} does not begin with its subject"


@pytest.mark.parametrize("text", ["`test_a`", "tests/b/test_file.py::test_a", "test_any_*.py"])
def test_references_to_tests_and_files_are_no_findings(text: str) -> None:
    assert reference_findings(text, "a.md", KNOWN) == []


def test_a_reference_to_no_test_is_a_finding() -> None:
    (found,) = reference_findings("see\n`test_file.py::test_b`", "a.md", KNOWN)
    assert found == "a.md:2: no test, and no file of tests, has the name test_b"


def tree(root: Path) -> Path:
    """Return a small repository without a finding."""
    for folder in (".ci", *words._FOLDERS):
        (root / folder).mkdir()
    for name in words._FILES:
        (root / name).write_text("ok\n")
    (root / "scripts" / "words.toml").write_text('exceptions = []\n[words]\n"lost" = "removed"\n')
    (root / "tests" / "test_one.py").write_text("def test_a() -> None: ...\n")
    return root


def test_a_tree_gets_one_line_for_each_finding(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert findings(root) == []
    (root / "tests" / "test_two.py").write_text(f"def test_{'a' * MAX_NAME}() -> None: ...\n")
    (root / "README.md").write_text("`test_one.py` has test_a and test_b.\n")
    (root / "Makefile").write_text("lost\n")
    starts = ["tests/test_two.py:1: test_aaa", "Makefile:1: lost", "README.md:1: no test"]
    assert [
        line[: len(start)] for line, start in zip(findings(root), starts, strict=True)
    ] == starts


def test_generated_code_and_recordings_are_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "tests" / "recorded").mkdir()
    (root / "tests" / "recorded" / "list.yaml").write_text("lost\n")
    (root / "proto" / "a_pb2.py").write_text("lost\n")
    (root / "proto" / "a_pb2_grpc.py").write_text("lost\n")
    assert findings(root) == []


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "docs").rmdir()
    with pytest.raises(FileNotFoundError, match="docs"):
        list(files(root))
