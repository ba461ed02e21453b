"""The answer to GetInterfaces as bytes is what protobuf itself would make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from netutil.agent.collect.results import Allocated, Interfaces
from netutil.agent.errors import AgentError, Reason, Unavailable
from netutil.agent.facts.interfaces import DeviceType, Interface
from netutil.agent.facts.links import Address, Link
from netutil.agent.messages import convert_devices
from netutil.agent.messages.encode_interfaces import with_counters, without_counters
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.parsers.rtnetlink import Counters
from netutil.v1alpha import netutil_pb2 as api

TEXTS = st.text(max_size=200)
NUMBERS = st.integers(0, 2**64 - 1)
COUNTERS = st.builds(Counters, **dict.fromkeys(Counters.__struct_fields__, NUMBERS))
LINKS = st.builds(
    Link,
    index=st.integers(1, 2**31 - 1),
    name=TEXTS,
    mtu=st.integers(0, 2**31 - 1),
    addresses=st.lists(st.builds(Address, TEXTS, TEXTS), max_size=3).map(tuple),
    num_vfs=st.none() | st.integers(0, 8),
)
DEVICES = st.builds(AllocatedDevice, TEXTS, st.integers(0, 9), TEXTS, TEXTS)
INTERFACES = st.builds(
    Interface,
    name=TEXTS,
    device_type=st.sampled_from(DeviceType),
    link=st.none() | LINKS,
    pci=st.none() | st.builds(PciInfo, TEXTS, driver=TEXTS),
    allocated=st.none() | DEVICES,
    device_reason=TEXTS,
)
ERRORS: st.SearchStrategy[AgentError | None] = st.none() | st.builds(
    Unavailable, st.sampled_from(Reason), TEXTS
)
FOUND = st.builds(
    Interfaces,
    interfaces=st.lists(INTERFACES, max_size=6).map(tuple),
    networks=st.none(),
    match=st.none(),
    host_network=st.booleans(),
    network_error=ERRORS,
    allocated=st.builds(
        Allocated, error=ERRORS, af_xdp=st.none() | st.lists(DEVICES, max_size=2).map(tuple)
    ),
    link_error=ERRORS,
    pci_error=ERRORS,
)


def expected(found: Interfaces, counters: Mapping[int, Counters]) -> api.InterfacesResponse:
    """Return the message that is made with the counters in the links."""
    interfaces = tuple(
        one
        if one.link is None
        else replace(one, link=structs.replace(one.link, counters=counters[one.link.index]))
        for one in found.interfaces
    )
    return convert_devices.interfaces(replace(found, interfaces=interfaces))


@given(found=FOUND, data=st.data())
def test_counters_are_put_into_the_bytes_as_into_the_message(
    found: Interfaces, data: st.DataObject
) -> None:
    links = [one.link for one in found.interfaces if one.link is not None]
    encoded = without_counters(found)
    for _ in range(2):
        counters = {link.index: data.draw(COUNTERS) for link in links}
        message = expected(found, counters)
        made = with_counters(encoded, counters)
        assert api.InterfacesResponse.FromString(made.body) == message
        # Nor is any field of it there twice, which not every decoder merges.
        assert made.ByteSize() == message.ByteSize()


@given(found=FOUND, data=st.data())
def test_the_answer_is_the_same_bytes_while_no_counter_changes(
    found: Interfaces, data: st.DataObject
) -> None:
    indexes = [one.link.index for one in found.interfaces if one.link is not None]
    encoded = without_counters(found)
    counters = {index: data.draw(COUNTERS) for index in indexes}
    made = with_counters(encoded, counters)
    assert with_counters(encoded, dict(counters)) is made
    for index, found_now in counters.items():
        others = counters | {index: structs.replace(found_now, rx_bytes=found_now.rx_bytes ^ 1)}
        again = with_counters(encoded, others)
        assert api.InterfacesResponse.FromString(again.body) == expected(found, others)
    assert with_counters(encoded, counters).framed == made.framed


def test_links_without_traffic_have_counters() -> None:
    interface = Interface("eth0", DeviceType.HOST, link=Link(2, "eth0"))
    found = Interfaces((interface,), None, None, False, None, Allocated(), None)
    made = with_counters(without_counters(found), {2: Counters()})
    assert api.InterfacesResponse.FromString(made.body).interfaces[0].link.HasField("counters")


def test_the_size_is_that_of_what_is_kept() -> None:
    interface = Interface("eth0", DeviceType.HOST, link=Link(2, "x" * 5000))
    found = Interfaces((interface,), None, None, False, None, Allocated(), None)
    small = Interfaces((replace(interface, link=Link(2, "")),), None, None, False, None,
        Allocated(), None)  # fmt: skip
    assert without_counters(small).size_bytes() < 100
    assert without_counters(found).size_bytes() <= 5000 + 100
