"""Texts that are kept once."""

from __future__ import annotations

import sys

import pytest
from netutil.agent import shared_text
from netutil.agent.shared_text import shared


def made(text: str) -> str:
    """Return a string of its own."""
    return "".join(list(text))


def test_equal_texts_are_one_string() -> None:
    assert shared(made("/kubepods/pod1")) is shared(made("/kubepods/pod1"))


def test_a_text_that_nothing_keeps_is_released() -> None:
    texts = [shared(made(f"/kubepods/pod{number}")) for number in range(1000)]
    with_texts = sys.getallocatedblocks()
    del texts
    assert sys.getallocatedblocks() < with_texts - 900


def test_no_text_is_shared_where_python_would_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_text, "_IS_RELEASED", False)
    assert shared(made("/kubepods/pod1")) is not shared(made("/kubepods/pod1"))
