"""How the commands of Kubernetes are built, and where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import kubernetes


def test_another_recipe_is_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kubernetes._path("kubelet")
    assert kubernetes._path("kubelet") == before
    monkeypatch.setattr(kubernetes, "_FLAGS", (*kubernetes._FLAGS, "-race"))
    assert kubernetes._path("kubelet").name == before.name
    assert kubernetes._path("kubelet") != before


def test_a_packaged_library_replaces_the_vendored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library, package), *_ = kubernetes._REPLACED.items()
    vendored = tmp_path / "source/vendor" / library
    packaged = tmp_path / package / "usr/share/gocode/src" / library
    for directory, file in ((vendored, "old.go"), (packaged, "new.go")):
        directory.mkdir(parents=True)
        (directory / file).touch()
    monkeypatch.setattr(kubernetes, "unpacked", lambda name: tmp_path / name)
    kubernetes._replace_vendored(tmp_path / "source")
    assert [one.name for one in vendored.iterdir()] == ["new.go"]
