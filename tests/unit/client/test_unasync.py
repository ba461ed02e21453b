"""The synchronous client is generated from the asyncio client."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import unasync


def test_sync_client_is_what_the_async_client_gives() -> None:
    assert unasync.main(["--check"]) == 0


def test_check_fails_on_an_edited_sync_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "sync.py"
    edited.write_text(unasync.TARGET.read_text(encoding="utf-8") + "# edited\n")
    monkeypatch.setattr(unasync, "TARGET", edited)
    assert unasync.main(["--check"]) == 1
    assert "python -m scripts.unasync" in capsys.readouterr().out


def test_check_fails_on_a_substitution_without_a_match() -> None:
    with pytest.raises(ValueError, match="matches import asyncio"):
        unasync.synchronous('"""Doc."""\n\nfrom __future__ import annotations\n')
