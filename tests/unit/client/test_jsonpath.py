"""`-o jsonpath=TEMPLATE`: the subset of kubectl's templates that `netutil` takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.client.cli.jsonpath import MAX_TEMPLATE_LENGTH, parse

DOCUMENT: dict[str, Any] = {
    "pods": [
        {"name": "web", "calls": 3, "labels": {"app.kubernetes.io/name": "web"}, "error": None},
        {"name": "dns", "calls": 0, "labels": {}, "error": None},
    ],
    "observed_at": "2026-01-31T12:00:00Z",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.pods[*].name}", "web dns"),
        ("{$.pods[*].name}", "web dns"),
        ("{pods[0].name}", "web"),
        ("{.pods[-1].calls}", "0"),
        ("{.pods[7].name}", ""),
        ("{.nothing.at.all}", ""),
        ("{.pods[0].error}", ""),
        ("{.pods[0].labels['app.kubernetes.io/name']}", "web"),
        ("{.pods[0].labels}", '{"app.kubernetes.io/name": "web"}'),
        ("{.pods[0]['name']}: {.observed_at}", "web: 2026-01-31T12:00:00Z"),
        ('{range .pods[*]}{.name}{"\\t"}{.calls}{"\\n"}{end}', "web\t3\ndns\t0\n"),
        ("{range .pods[*]}{@.name},{end}", "web,dns,"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_template_prints_what_its_paths_select(template: str, text: str) -> None:
    assert parse(template).render(DOCUMENT) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.pods", "a brace without its other"),
        ("}", "a brace without its other"),
        ("{.pods[?(@.name)]}", "is not understood"),
        ("{..name}", "is not understood"),
        ("{range .pods[*]}", "{range} without {end}"),
        ("{end}", "{end} without {range}"),
        ('{"\\q"}', "is not a quoted text"),
        ("x" * (MAX_TEMPLATE_LENGTH + 1), "longer than"),
    ],
)
def test_malformed_template_names_its_fault(template: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked
        parse(template)
    assert said in str(caught.value)


@given(st.text(alphabet="{}[].*'\"range d@$\\x0", max_size=40))
def test_any_template_is_rendered_or_a_value_error(template: str) -> None:
    try:
        parsed = parse(template)
    except ValueError:
        return
    assert isinstance(parsed.render(DOCUMENT), str)
