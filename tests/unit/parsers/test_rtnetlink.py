"""Messages of rtnetlink: what this machine cannot make, and what no kernel sends."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.rtnetlink import (
    LinkMessage,
    RuleMessage,
    parse_address,
    parse_link,
    parse_route,
    parse_rule,
)

NESTED = 0x8000
RTM_NEWLINK, RTM_NEWROUTE = 16, 24
ADDRESS, IFNAME, MTU, OPERSTATE, LINKINFO, NUM_VF, VFINFO_LIST, STATS64 = (
    1,
    3,
    4,
    16,
    18,
    21,
    22,
    23,
)
AF_SPEC, PARENT_DEV_NAME, PARENT_DEV_BUS_NAME = 26, 56, 57
RTA_MULTIPATH = 9


def attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def link(*attributes: bytes) -> LinkMessage:
    body = struct.pack("=BBHiII", 0, 0, 1, 7, 1, 0) + b"".join(attributes)
    return parse_link(message(RTM_NEWLINK, body))


def test_a_vlan_has_its_id() -> None:
    info = attribute(1, b"vlan\0") + attribute(2 | NESTED, attribute(1, struct.pack("=H", 4094)))
    found = link(attribute(IFNAME, b"eth0.4094\0"), attribute(LINKINFO | NESTED, info))
    assert (found.index, found.name, found.kind, found.vlan_id) == (7, "eth0.4094", "vlan", 4094)


def test_the_same_attribute_of_another_kind_is_no_vlan_id() -> None:
    info = attribute(1, b"vxlan\0") + attribute(2, number(1, 42))
    assert link(attribute(LINKINFO, info)).vlan_id is None


def test_functions_name_their_device_or_their_number_of_vfs() -> None:
    found = link(
        attribute(PARENT_DEV_NAME, b"0000:3b:02.1\0"),
        attribute(PARENT_DEV_BUS_NAME, b"pci\0"),
        number(NUM_VF, 64),
    )
    assert (found.parent_device_bus, found.parent_device, found.num_vfs) == (
        "pci",
        "0000:3b:02.1",
        64,
    )


def test_attributes_that_a_link_lacks_are_unknown() -> None:
    found = link()
    assert (found.name, found.mac, found.mtu, found.kind) == ("", "", 0, "")
    assert found.operational_state == "UNKNOWN"
    assert (found.vlan_id, found.below, found.below_namespace_id) == (None, None, None)
    assert (found.master, found.num_vfs, found.counters.rx_bytes) == (None, None, 0)


def test_unknown_attributes_of_newer_kernels_hide_no_link() -> None:
    found = link(
        attribute(IFNAME, b"eth0\0"),
        attribute(OPERSTATE, b"\x63"),
        attribute(4000, b"unheard of"),
        attribute(LINKINFO, attribute(1, b"novelty\0") + attribute(2, b"?") + attribute(99, b"?")),
        attribute(STATS64, struct.pack("=40Q", *range(40))),
    )
    assert (found.name, found.kind, found.operational_state) == ("eth0", "novelty", "UNKNOWN")
    assert (found.counters.rx_packets, found.counters.tx_dropped) == (0, 7)


@pytest.mark.parametrize("kind", [VFINFO_LIST, AF_SPEC])
def test_unrequested_attributes_are_not_decoded(kind: int) -> None:
    spoilt = attribute(kind | NESTED, struct.pack("=HHH", 60_000, 1, 1))
    assert link(spoilt, attribute(IFNAME, b"eth0\0")).name == "eth0"


def test_a_name_that_is_no_utf_8_gets_a_mark() -> None:
    assert link(attribute(IFNAME, b"et\xff0\0")).name == "et\ufffd0"


@pytest.mark.parametrize("kind", [MTU, VFINFO_LIST, 4000])
@pytest.mark.parametrize("size", [0, 3, 9, 65535])
def test_an_attribute_that_does_not_fit_is_refused(kind: int, size: int) -> None:
    with pytest.raises(ValueError, match="bytes where"):
        link(struct.pack("=HH", size, kind) + bytes(4))


@pytest.mark.parametrize("size", [0, 3, 9, 65535])
def test_an_attribute_that_does_not_fit_into_another_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="bytes where"):
        link(attribute(LINKINFO, struct.pack("=HH", size, 1) + bytes(4)))


@pytest.mark.parametrize(("kind", "value"), [(MTU, b""), (MTU, b"\1\2"), (STATS64, bytes(63))])
def test_bytes_after_an_attribute_are_no_part_of_its_value(kind: int, value: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        link(attribute(kind, value), attribute(ADDRESS, bytes(100)))


@pytest.mark.parametrize("size", [0, 7, 9, 65535])
def test_a_hop_that_does_not_fit_is_refused(size: int) -> None:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
    hop = attribute(RTA_MULTIPATH, struct.pack("=HBBi", size, 0, 0, 2))
    with pytest.raises(ValueError, match="next hop"):
        parse_route(message(RTM_NEWROUTE, body + hop))


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_messages_or_a_value_error(body: bytes, headed: bool) -> None:
    for parse in (parse_link, parse_address, parse_route):
        try:
            parse(message(RTM_NEWLINK, body) if headed else body)
        except ValueError:
            continue


def test_an_undecodable_message_is_raised_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    info = struct.pack("=HH", 0, 1) + attribute(2, b"?")
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="bytes where"):
        link(attribute(LINKINFO, info))
    assert not caplog.records


def reported_by(lines: str) -> list[str]:
    """Return the words that another Python prints."""
    code = f"import sys\n{lines}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_only_the_librarys_messages_are_loaded() -> None:
    """All of it would be nine MiB more in every agent."""
    loaded = reported_by(
        "from netutil.agent.parsers import rtnetlink\n"
        "print(*(name for name in sys.modules if name.startswith('pyroute2.')))"
    )
    assert {name.split(".")[1] for name in loaded} == {"common", "config", "netlink"}
    assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded
    assert "pyroute2.netlink.nlsocket" not in loaded


def test_the_library_starts_no_process_and_opens_no_socket() -> None:
    """Before 0.9.7 it ran `uname -p` and `file`."""
    done = reported_by(
        "done = []\n"
        "kinds = ('subprocess.', 'os.fork', 'os.exec', 'os.posix_spawn', 'socket.')\n"
        "sys.addaudithook(lambda name, _: name.startswith(kinds) and done.append(name))\n"
        "from netutil.agent.parsers import rtnetlink\n"
        "print(*done)"
    )
    assert done == []


def rule(*attributes: bytes, family: int = 2, table: int = 0, action: int = 1) -> bytes:
    """RTM_NEWRULE as linux/fib_rules.h has it."""
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, table, 0, 0, action, 0)
    body += b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 32, 0, 1, 0) + body


L3MDEV = struct.pack("=HHBxxx", 5, 19, 1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (rule(number(15, 100), table=100), RuleMessage(2, 100, False)),
        (rule(number(15, 100_000), table=252, family=10), RuleMessage(10, 100_000, False)),
        (rule(table=254), RuleMessage(2, 254, False)),
        (rule(L3MDEV), RuleMessage(2, None, True)),
        (rule(number(15, 100), action=8), RuleMessage(2, None, False)),
        (rule(number(16, 0), number(15, 7)), RuleMessage(2, 7, False)),
    ],
)
def test_a_rule_leads_to_a_table_to_those_of_vrfs_or_nowhere(
    message: bytes, expected: RuleMessage
) -> None:
    assert parse_rule(message) == expected


@given(st.binary(max_size=80))
def test_any_bytes_are_a_rule_or_a_value_error(data: bytes) -> None:
    for message in (data, rule(data)):
        try:
            found = parse_rule(message)
        except ValueError:
            continue
        assert found.table is None or found.table > 0
