"""The picture of the agent's imports: scripts/picture.py."""

from __future__ import annotations

import html

from scripts import picture

_ROWS = (("__main__",), ("api",), ("collect", "csi"), ("errors", "backoff"))
_PACKAGES = frozenset({"api", "collect", "csi"})


def test_a_module_without_a_package_is_in_the_box_of_its_end() -> None:
    assert picture.boxes(_ROWS, _PACKAGES) == {
        "__main__": "__main__",
        "api": "api",
        "collect": "collect",
        "csi": "csi",
        "errors": "errors, backoff",
        "backoff": "errors, backoff",
    }


def test_the_picture_has_the_arrows_of_the_code() -> None:
    rows = picture.layers()
    packages = frozenset(path.parent.name for path in picture.ROOT.glob("agent/*/__init__.py"))
    found = picture.imports(picture.boxes(rows, packages))
    assert found == picture.drawn_edges(picture.PICTURE.read_text(encoding="utf-8"))
    assert ("api", "admin") in found
    assert ("api", "parsers") not in found  # implied by a path of other arrows


def test_an_arrow_that_is_taken_away_is_missed() -> None:
    svg = picture.PICTURE.read_text(encoding="utf-8")
    arrow = html.escape("watch->messages").replace("-", "&#45;")
    assert arrow in svg
    without = picture.drawn_edges(svg.replace(arrow, "nothing"))
    assert ("watch", "messages") not in without
