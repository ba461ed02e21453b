"""PCI functions that are held are those that /sys shows at that moment."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

import pytest
from netutil.agent.collect import pci_cache
from netutil.agent.collect.pci_cache import (
    MAX_ABSENT,
    MAX_AGE_SECONDS,
    MAX_FUNCTIONS,
    MAX_LOOKS,
    PciCache,
)
from netutil.agent.facts.pci import read_pci

from tests.support.nodes.sriov_node import (
    PF,
    SECOND_VF,
    UNBOUND_VF,
    VF,
    VFIO_VF,
    VFS,
    build_sriov_node,
)

ABSENT = "0000:ff:00.0"


class Clock:
    """A clock that changes only when it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    build_sriov_node(tmp_path)
    return tmp_path / "sys/bus/pci/devices"


def cache_of(devices: Path, clock: Clock | None = None) -> PciCache:
    return PciCache(str(devices.parents[3]), clock or Clock())


def bind(devices: Path, address: str, driver: str | None) -> None:
    """Bind a driver as the kernel does: the link of the old one goes before that of the new."""
    link = devices / address / "driver"
    if link.is_symlink():
        link.unlink()
    if driver is not None:
        (devices.parent / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../drivers/{driver}")


def test_nothing_is_held_before_it_was_looked_up(devices: Path) -> None:
    cache = cache_of(devices)
    assert cache.held([VF]) is None
    assert cache.look(VF) == read_pci(cache_root(devices), VF)
    assert cache.held([VF]) == {VF: read_pci(cache_root(devices), VF)}
    assert cache.held([VF, PF]) is None


def cache_root(devices: Path) -> str:
    return str(devices.parents[3])


def test_a_held_function_is_not_read_again(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(devices)
    found = {address: cache.look(address) for address in (*VFS, ABSENT)}
    monkeypatch.setattr(pci_cache, "read_pci", None)
    assert cache.held(found) == found
    assert [cache.look(address) for address in found] == list(found.values())
    assert found[ABSENT] is None


def test_a_driver_that_is_bound_or_unbound_is_seen_at_once(devices: Path) -> None:
    cache = cache_of(devices)
    for address, driver in ((VF, "vfio-pci"), (VF, None), (UNBOUND_VF, "iavf")):
        cache.look(address)
        assert cache.held([address]) is not None
        bind(devices, address, driver)
        assert cache.held([address]) is None
        found = cache.look(address)
        assert found is not None and found.driver == (driver or "")


def test_a_replaced_function_is_seen_at_once(devices: Path) -> None:
    cache = cache_of(devices)
    cache.look(VF)
    (devices / VF).rename(devices / "removed")
    assert cache.held([VF]) is None
    assert cache.look(VF) is None
    assert cache.held([VF]) == {VF: None}
    (devices / VF).mkdir()
    assert cache.held([VF]) is None
    found = cache.look(VF)
    assert found is not None and found.vendor_id == ""


def test_a_file_without_change_events_is_read_again_in_time(devices: Path) -> None:
    clock = Clock()
    cache = cache_of(devices, clock)
    before = cache.look(SECOND_VF)
    (devices / SECOND_VF / "numa_node").write_text("1\n")
    assert cache.held([SECOND_VF]) == {SECOND_VF: before}
    clock.seconds += MAX_AGE_SECONDS + 0.1
    assert cache.held([SECOND_VF]) is None
    after = cache.look(SECOND_VF)
    assert after is not None and after.numa_node == 1


def test_an_expired_function_is_released(devices: Path) -> None:
    clock = Clock()
    cache = cache_of(devices, clock)
    cache.look(VF)
    clock.seconds += MAX_AGE_SECONDS - 0.1
    cache.look(SECOND_VF)
    cache.age()
    assert len(cache) == 2
    clock.seconds += 0.2
    cache.age()
    assert (len(cache), cache.held([VF])) == (1, None)
    clock.seconds += MAX_AGE_SECONDS
    cache.age()
    assert len(cache) == 0


def test_a_function_that_changes_while_it_is_read_is_not_held(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(devices)

    def read(host_root: str, address: str) -> object:
        found = read_pci(host_root, address)
        bind(devices, address, "vfio-pci")
        return found

    with monkeypatch.context() as changing:
        changing.setattr(pci_cache, "read_pci", read)
        cache.look(VF)
    assert cache.held([VF]) is None
    found = cache.look(VF)
    assert found is not None and found.driver == "vfio-pci"


def test_a_function_that_cannot_be_read_is_not_held(devices: Path) -> None:
    cache = cache_of(devices)
    vendor = (devices / VF / "vendor").resolve()
    vendor.unlink()
    vendor.mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            cache.look(VF)
    assert cache.held([VF]) is None and len(cache) == 0


def test_an_invalid_address_is_no_path(devices: Path) -> None:
    cache = cache_of(devices)
    assert cache.look("../../../../etc") is None
    assert len(cache) == 0
    assert cache.look(VF.upper()) == cache.look(VF)
    assert len(cache) == 1


def test_many_functions_are_left_to_another_thread(devices: Path) -> None:
    cache = cache_of(devices)
    addresses = [f"0000:{number:02x}:1f.7" for number in range(MAX_LOOKS + 1)]
    for address in addresses:
        cache.look(address)
    assert cache.held(addresses) is None
    assert cache.held(addresses[1:]) == dict.fromkeys(addresses[1:])


def test_the_cache_is_bounded_in_size_and_age(devices: Path) -> None:
    clock = Clock()
    cache = cache_of(devices, clock)
    for number in range(MAX_ABSENT + 10):
        cache.look(f"{number:04x}:ff:1f.7")
    assert len(cache) == MAX_ABSENT
    clock.seconds += MAX_AGE_SECONDS + 0.1
    cache.look(VF)
    assert len(cache) == 1


def test_no_more_functions_are_held_than_the_limit(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pci_cache, "MAX_FUNCTIONS", 2)
    cache = cache_of(devices)
    for address in (PF, VF, SECOND_VF):
        cache.look(address)
    assert len(cache) == 2
    assert cache.held([PF]) is None
    assert cache.held([VF, SECOND_VF]) is not None


def test_invented_addresses_of_a_pod_release_no_host_function(devices: Path) -> None:
    cache = cache_of(devices)
    cache.look(VF)
    for number in range(MAX_FUNCTIONS + 10):
        cache.look(f"{number:04x}:ff:1f.7")
    assert cache.held([VF]) is not None


def test_a_function_that_comes_and_goes_is_held_once(devices: Path) -> None:
    cache = cache_of(devices)
    link, aside = devices / VF, devices / "aside"
    for _ in range(2):
        assert cache.look(VF) is not None
        link.rename(aside)
        assert cache.look(VF) is None
        aside.rename(link)
    assert len(cache) == 1


def test_no_look_is_older_than_what_was_there_when_it_began(devices: Path) -> None:
    """A thousand changes at random moments, looked at from several threads at once."""
    cache = cache_of(devices)
    drivers = ("iavf", "vfio-pci")
    bound = [""]
    wrong: list[tuple[str, str]] = []
    ended = threading.Event()
    changing = threading.Lock()

    def ask() -> None:
        while not ended.is_set():
            with changing:  # no change between a look and what it is compared with
                held = cache.held([VFIO_VF])
                found = held[VFIO_VF] if held is not None else cache.look(VFIO_VF)
                if found is None or found.driver != bound[0]:
                    wrong.append((found.driver if found else "-", bound[0]))
            os.sched_yield()

    bind(devices, VFIO_VF, None)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1000):
            with changing:
                bound[0] = drivers[number % 2]
                bind(devices, VFIO_VF, bound[0])
            for _ in range(secrets.randbelow(4)):
                os.sched_yield()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert wrong == []
