"""Hardware addresses as ip(8) prints them."""

from __future__ import annotations

import pytest
from netutil.agent.parsers.hardware_address import format_hardware_address

ETHERNET, INFINIBAND, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, NONE = (
    *(1, 32, 768, 769, 776, 778, 823, 0xFFFE),
)
INFINIBAND_ADDRESS = "00:00:10:49:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"


@pytest.mark.parametrize(
    ("link_type", "address", "text"),
    [
        (ETHERNET, bytes.fromhex("0a580a800213"), "0a:58:0a:80:02:13"),
        (INFINIBAND, bytes.fromhex(INFINIBAND_ADDRESS.replace(":", "")), INFINIBAND_ADDRESS),
        (TUNNEL, bytes(4), "0.0.0.0"),
        (SIT, bytes([192, 0, 2, 1]), "192.0.2.1"),
        (IPGRE, bytes([192, 0, 2, 1]), "192.0.2.1"),
        (TUNNEL6, bytes(16), "::"),
        (IP6GRE, bytes.fromhex("20010db8") + bytes(11) + b"\x01", "2001:db8::1"),
        (TUNNEL, b"\x0a\x00", "0a:00"),
        (NONE, b"", ""),
    ],
)
def test_an_address_is_written_as_ip_writes_it(link_type: int, address: bytes, text: str) -> None:
    assert format_hardware_address(link_type, address) == text
