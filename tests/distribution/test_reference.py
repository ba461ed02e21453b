"""The API reference of the client: scripts/reference.py."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import netutil.client
import pytest
from pdoc.doc import Module

from scripts import reference


def test_the_reference_has_each_exported_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reference.main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    sections = set(re.findall(r'<section id="(\w+)"', page))
    assert sections == set(netutil.client.__all__)
    assert {"Client.cpu", "AsyncClient.watch", "CPU.effective_cpus"} <= set(
        re.findall(r'id="(\w+\.\w+)"', page)
    )


def test_a_method_without_a_docstring_is_named() -> None:
    class Documented:
        """One."""

        def call(self) -> None:
            return

        def _private(self) -> None:
            return

    module = ModuleType("made")
    module.Documented = Documented  # type: ignore[attr-defined]
    module.__all__ = ["Documented"]  # type: ignore[attr-defined]
    assert reference.undocumented(Module(module)) == ["made.Documented.call"]
