"""traceparent: what names a trace, and what the specification says to ignore."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.observability.log_setup import TraceContext, parse_traceparent

# The specification's own example: https://www.w3.org/TR/trace-context/#traceparent-header
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_a_header_names_the_trace_and_the_callers_span(flags: str) -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}") == TraceContext(TRACE, SPAN)


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01-what-comes") == TraceContext(TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01-{'x' * 300}",
    ],
)
def test_a_malformed_header_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text())
def test_nothing_a_caller_sends_raises(text: str) -> None:
    found = parse_traceparent(text)
    assert found is None or (len(found.trace_id), len(found.span_id)) == (32, 16)
