"""Counters as /proc/net/dev shows them."""

from __future__ import annotations

import pytest
from netutil.agent.parsers.net_dev import parse_net_dev
from netutil.agent.parsers.rtnetlink import Counters

HEADINGS = b"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
"""
LINES = b"""    lo:     128       2    0    0    0     0          0         0      128       2    0    0    0     0       0          0
eth0-is-15-char: 18446744073709551615 11    3    5    7     9         13        15      266       4    6    8   10    12      14         16
"""  # noqa: E501


def test_each_counter_is_that_of_its_column() -> None:
    assert parse_net_dev(HEADINGS + LINES) == {
        "lo": Counters(rx_packets=2, tx_packets=2, rx_bytes=128, tx_bytes=128),
        "eth0-is-15-char": Counters(
            rx_packets=11,
            tx_packets=4,
            rx_bytes=2**64 - 1,
            tx_bytes=266,
            rx_errors=3,
            tx_errors=6,
            rx_dropped=5,
            tx_dropped=8,
        ),
    }


def test_a_name_that_is_no_text_is_that_of_its_link() -> None:
    line = b"  e\xff: " + b"1 " * 16 + b"\n"
    assert set(parse_net_dev(HEADINGS + line)) == {"e\ufffd"}


@pytest.mark.parametrize("line", [b"eth0: 1 2 3\n", b"eth0\n", b"eth0: " + b"x " * 16 + b"\n"])
def test_a_line_of_another_form_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of int, or its own
        parse_net_dev(HEADINGS + line)


def test_a_namespace_without_links_has_no_counters() -> None:
    assert parse_net_dev(HEADINGS) == {}
