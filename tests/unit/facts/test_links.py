"""Links read over netlink are what `ip -j` shows inside the namespace, field by field."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from netutil.agent.errors import Reason, ResourceExhausted, Unavailable
from netutil.agent.facts import links as links_module
from netutil.agent.facts import rtnetlink
from netutil.agent.facts.drift import Drift
from netutil.agent.facts.interfaces import merge
from netutil.agent.facts.links import Link, names_parent_devices, read_links
from netutil.agent.facts.links import network_namespace as namespace_of

from tests.support.as_ip import links_of_ip
from tests.support.namespaces import Namespace, network_namespace
from tests.support.processes import open_descriptors
from tests.unit.facts.reports import link, network, reported

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
]

KINDS = [
    "link add eth0 address 02:00:00:00:00:01 type veth peer name peer0",
    "link add macvlan0 link eth0 type macvlan mode bridge",
    "link add br0 type bridge",
    "link set peer0 master br0",
    "link add vxlan0 type vxlan id 42 remote 192.0.2.9 dstport 4789 dev eth0",
    "tuntap add tap0 mode tap",
    "link set eth0 mtu 1400 up",
    "link set peer0 up",
    "link set br0 up",
    "link set lo up",
    "address add 192.0.2.5/24 dev eth0",
    "address add 198.51.100.1 peer 198.51.100.2 dev eth0",
    "address add 2001:db8::5/64 dev eth0 nodad",
    "route add default via 192.0.2.1 metric 50",
    "route add default via 192.0.2.2 metric 60 src 192.0.2.5",
    "-6 route add default via 2001:db8::1",
    "address add 2001:db8::7 peer 2001:db8::8/128 dev eth0 nodad",
    "tuntap add tun0 mode tun",
    "link set tun0 up",
    "address add 203.0.113.9/32 dev tun0",
    "route add default dev tun0 metric 70",
    "route add default metric 80 nexthop via 192.0.2.3 dev eth0 nexthop dev tun0",
    "-4 route add default via inet6 2001:db8::9 dev eth0 metric 90",
]
NOT_EVERYWHERE = {
    "macvtap": "link add macvtap0 link eth0 type macvtap",
    "ifb": "link add ifb0 type ifb",
}


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with network_namespace() as made:
        yield made


def set_up(namespace: Namespace, lines: list[str]) -> None:
    for line in lines:
        namespace.ip(*line.split())


def shown(links: tuple[Link, ...]) -> list[dict[str, Any]]:
    """Every field, so that none is left out of the comparison."""
    return json.loads(msgspec.json.encode(links))  # type: ignore[no-any-return]


def as_ip_shows(namespace: Namespace) -> tuple[Link, ...]:
    """Return the links, which are what `ip -j` shows once the kernel has settled all of them.

    Addresses of IPv6 are tentative at first, and what is sent for them counts.
    """
    deadline = time.monotonic() + 30
    links, expected = read_links(namespace.directory), links_of_ip(namespace.ip)
    while shown(links) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
        links, expected = read_links(namespace.directory), links_of_ip(namespace.ip)
    assert shown(links) == expected
    return links


def test_links_of_every_kind_are_what_ip_shows(namespace: Namespace) -> None:
    set_up(namespace, KINDS)
    kinds = {"", "veth", "macvlan", "bridge", "vxlan", "tun"}
    for kind, line in NOT_EVERYWHERE.items():
        with suppress(subprocess.CalledProcessError):
            set_up(namespace, [line])
            kinds.add(kind)
    links = as_ip_shows(namespace)
    assert {link.kind for link in links} >= kinds
    assert sum(len(link.default_routes) for link in links) == 7


def test_vlan_and_dummy_links_are_what_ip_shows(namespace: Namespace) -> None:
    try:
        namespace.ip("link", "add", "dummy0", "type", "dummy")
    except subprocess.CalledProcessError as error:
        assert b"Unknown device type" in error.stderr
        pytest.skip("this kernel has neither dummy nor VLAN links; make e2e-vm has one that does")
    set_up(
        namespace,
        [
            "link add link dummy0 name dummy0.7 type vlan id 7",
            "link set dummy0 up mtu 9000",
            "link set dummy0.7 up",
            "address add 192.0.2.7/24 dev dummy0.7",
            "address add 2001:db8::7/64 dev dummy0.7 nodad",
            "route add default via 192.0.2.1 dev dummy0.7",
        ],
    )
    links = as_ip_shows(namespace)
    ids = {
        one["ifname"]: one.get("linkinfo", {}).get("info_data", {}).get("id")
        for one in namespace.ip("link")
    }
    assert {link.name: link.vlan_id for link in links} == ids
    vlan = next(link for link in links if link.vlan_id is not None)
    assert (vlan.kind, vlan.parent, vlan.vlan_id) == ("vlan", "dummy0", 7)
    assert [route.gateway for route in vlan.default_routes] == ["192.0.2.1"]


def test_a_multipath_route_is_one_for_each_of_its_links(namespace: Namespace) -> None:
    set_up(namespace, [*KINDS[:13], "address add 203.0.113.5/24 dev br0"])
    both = "route add default nexthop via 192.0.2.1 dev eth0 nexthop via 203.0.113.1 dev br0"
    set_up(namespace, [both])
    found = {
        link.name: [route.gateway for route in link.default_routes]
        for link in read_links(namespace.directory)
        if link.default_routes
    }
    assert found == {"eth0": ["192.0.2.1"], "br0": ["203.0.113.1"]}


def tables_of(namespace: Namespace) -> dict[str, list[tuple[str, int]]]:
    """Gateway and table of each default route, by link."""
    return {
        link.name: [(route.gateway, route.table) for route in link.default_routes]
        for link in read_links(namespace.directory)
        if link.default_routes
    }


SOURCE_BASED = [
    *KINDS[:13],
    "route add default via 192.0.2.1 dev eth0",
    "address add 203.0.113.5/24 dev br0",
    "route add default via 203.0.113.1 dev br0 table 100",
    "route add default via 203.0.113.2 dev br0 table 100000",
    "-6 route add default via 2001:db8::1 dev eth0 table 100",
]


def test_default_routes_of_a_table_need_a_rule(namespace: Namespace) -> None:
    set_up(namespace, SOURCE_BASED)
    assert tables_of(namespace) == {"eth0": [("192.0.2.1", 254)]}
    namespace.ip("rule", "add", "from", "203.0.113.5", "table", "100")
    assert tables_of(namespace) == {"eth0": [("192.0.2.1", 254)], "br0": [("203.0.113.1", 100)]}
    as_ip_shows(namespace)
    namespace.ip("rule", "add", "iif", "br0", "table", "100000")
    namespace.ip("-6", "rule", "add", "from", "2001:db8::5", "table", "100")
    assert tables_of(namespace) == {
        "eth0": [("192.0.2.1", 254), ("2001:db8::1", 100)],
        "br0": [("203.0.113.1", 100), ("203.0.113.2", 100_000)],
    }
    as_ip_shows(namespace)


def test_a_rule_that_sends_packets_nowhere_leads_to_no_table(namespace: Namespace) -> None:
    set_up(namespace, SOURCE_BASED)
    namespace.ip("rule", "add", "from", "203.0.113.5", "prohibit")
    assert "br0" not in tables_of(namespace)


def test_the_gateway_of_a_source_based_route_is_no_drift(namespace: Namespace) -> None:
    set_up(namespace, SOURCE_BASED)
    reports = reported(network("br0", gateway=["203.0.113.1"]))

    def found() -> tuple[Drift, ...]:
        merged = merge(reports, read_links(namespace.directory), (), lambda _: None)
        return merged[0].drift

    assert found() == (Drift("gateway", "203.0.113.1"),)
    namespace.ip("rule", "add", "from", "203.0.113.5", "table", "100")
    assert found() == ()


@pytest.mark.parametrize(
    ("release", "named"),
    [("5.14.0", True), ("6.1.0-18-amd64", True), ("5.13.19", False), ("4.18.0-553.el8", False)],
)
def test_a_kernel_before_5_14_names_no_parent_device(release: str, named: bool) -> None:
    assert names_parent_devices(release, (link(2, "net1"),)) is named
    assert names_parent_devices(release, (link(2, "net1"), link(3, "net2", "0000:3b:01.0")))


def test_a_release_that_is_none_names_no_parent_device() -> None:
    assert not names_parent_devices("unknown", ())


def test_counters_are_what_ip_shows(namespace: Namespace) -> None:
    namespace.ip("link", "set", "lo", "up")
    send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
    subprocess.run(
        ["nsenter", "-t", str(namespace.pid), "-n", sys.executable, "-c", send], check=True
    )
    links = read_links(namespace.directory)
    assert links[0].counters.rx_packets and links[0].counters.tx_bytes
    assert shown(links) == links_of_ip(namespace.ip)


def test_changes_are_seen_at_the_next_look(namespace: Namespace) -> None:
    set_up(namespace, KINDS[:1])
    read_links(namespace.directory)
    set_up(
        namespace,
        ["link set eth0 address 02:00:00:00:00:99 mtu 1300", "address add 192.0.2.7/24 dev eth0"],
    )
    as_ip_shows(namespace)
    set_up(namespace, ["link delete eth0"])
    assert [link.name for link in read_links(namespace.directory)] == ["lo"]


def test_a_parent_in_another_namespace_is_no_index_of_this_one(namespace: Namespace) -> None:
    with network_namespace() as other:
        set_up(
            namespace,
            ["link add eth0 type veth peer name far0", f"link set far0 netns {other.pid}"],
        )
        links = read_links(other.directory)
        assert shown(links) == links_of_ip(other.ip)
        (link,) = [one for one in links if one.name == "far0"]
    assert link.parent == ""
    assert link.parent_namespace_id is not None
    assert link.parent_index is not None


def test_ten_thousand_looks_leave_no_descriptor_and_no_thread(namespace: Namespace) -> None:
    read_links(namespace.directory)
    gc.collect()  # what other tests left open is closed now and not while this one counts
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    for _ in range(10_000):
        read_links(namespace.directory)
    assert open_descriptors() == descriptors
    assert set(threading.enumerate()) <= threads


def namespaces_of_threads() -> list[int]:
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            found.append(os.stat(f"/proc/self/task/{task}/ns/net").st_ino)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_the_agent_itself_stays_in_its_own_namespace(namespace: Namespace) -> None:
    own = os.stat("/proc/thread-self/ns/net").st_ino
    read_links(namespace.directory)
    assert os.stat("/proc/thread-self/ns/net").st_ino == own
    deadline = time.monotonic() + 10  # a thread that ended is shown for a moment longer
    while any(one != own for one in namespaces_of_threads()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(namespaces_of_threads()) == {own}
    me = os.open("/proc/self", os.O_RDONLY)
    try:
        assert namespace_of(me) != namespace_of(namespace.directory)
    finally:
        os.close(me)


def test_a_process_that_ended_has_no_links() -> None:
    with network_namespace() as made:
        kept = os.dup(made.directory)
    try:
        with pytest.raises((ProcessLookupError, FileNotFoundError)):
            read_links(kept)
    finally:
        os.close(kept)


def test_more_links_than_the_bound_are_refused(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "MAX_LINKS", 3)
    set_up(namespace, KINDS[:3])
    with pytest.raises(ResourceExhausted) as refused:
        read_links(namespace.directory)
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_TOO_LARGE
    assert "reads at most 3" in refused.value.message


def test_a_dump_past_the_bound_is_refused(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtnetlink, "MAX_DUMP_BYTES", 1000)
    with pytest.raises(ResourceExhausted):
        read_links(namespace.directory)


def test_many_other_routes_do_not_hide_or_slow_the_default(namespace: Namespace) -> None:
    set_up(namespace, KINDS[:15])
    namespace.batch(
        *(f"route add 10.{n >> 8}.{n & 255}.0/24 via 192.0.2.1\n" for n in range(20_000))
    )
    (link,) = [one for one in read_links(namespace.directory) if one.name == "eth0"]
    assert [route.gateway for route in link.default_routes if route.ip_version == 4] == [
        "192.0.2.1",
        "192.0.2.2",
    ]


def test_a_kernel_that_does_not_answer_is_a_failure_in_time(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = socket.socketpair()
    near.settimeout(0.05)
    monkeypatch.setattr(links_module, "open_rtnetlink", lambda _: near)
    with far, pytest.raises(Unavailable) as refused:
        read_links(namespace.directory)
    assert refused.value.reason is Reason.NETWORK_NAMESPACE_NOT_READABLE
