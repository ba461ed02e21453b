"""Hardware addresses as ip(8) prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.addresses import format_hardware_address, is_same_address

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


addresses = st.sampled_from([1, 6, 8, 20]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size)
)


@given(addresses, st.sampled_from([":", "-"]), st.booleans())
def test_spelling_does_not_make_another_address(
    address: bytes, separator: str, upper: bool
) -> None:
    text = address.hex(separator)
    assert is_same_address(text.upper() if upper else text, address.hex(":"))


@given(addresses, addresses)
def test_two_addresses_are_compared_by_their_bytes_or_their_guid(one: bytes, other: bytes) -> None:
    by_guid = 20 in (len(one), len(other)) and {len(one), len(other)} <= {8, 20}
    expected = one[-8:] == other[-8:] if by_guid else one == other
    assert is_same_address(one.hex(":"), other.hex(":")) is expected


@given(st.text(), st.text())
def test_any_two_texts_are_compared(one: str, other: str) -> None:
    assert is_same_address(one, one)
    assert is_same_address(one, other) is is_same_address(other, one)
