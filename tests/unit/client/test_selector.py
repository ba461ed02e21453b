"""Label selectors of `netutil node pods -l`, as kubectl takes them."""

from __future__ import annotations

import pytest
from netutil.client.cli.selector import parse_selector

LABELS = {"app": "web", "tier": "front", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app=api", False),
        ("app!=api", True),
        ("app!=web", False),
        ("other!=x", True),
        ("app", True),
        ("other", False),
        ("!other", True),
        ("!app", False),
        ("empty=", True),
        ("other=", False),
        ("app in (web, api)", True),
        ("app in (api)", False),
        ("app notin (api)", True),
        ("app notin (web)", False),
        ("app in (web,api),tier=front", True),
        ("app=web,tier=back", False),
    ],
)
def test_selector_matches_labels(selector: str, matches: bool) -> None:
    assert parse_selector(selector)(LABELS) is matches


@pytest.mark.parametrize("selector", ["", "a=b=c", "app in web", "=web", "app=web,", "(a)", "a b"])
def test_malformed_selector_is_a_value_error(selector: str) -> None:
    with pytest.raises(ValueError, match="is not a label selector"):
        parse_selector(selector)
