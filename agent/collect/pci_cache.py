"""Cache of PCI functions of the host, valid while the functions and their drivers stay the same.

A look at a function is two system calls: stat(2) of its directory in /sys/bus/pci/devices, and
readlink(2) of `driver` in it. A function that is removed and added again has a new node of sysfs
with a number of its own (`kernfs_new_node` in fs/kernfs/dir.c), and the link is there exactly while
a driver is bound (`driver_sysfs_add` in drivers/base/dd.c). So a look sees both at that moment. It
reads no attribute, so it waits for no device and no driver, and is made on the event loop for each
answer.

Vendor, device, class, and the physical function with its number stay the same as long as the
directory does. NUMA node, IOMMU group and the largest number of virtual functions can be changed
by the node's administrator or by a driver of the physical function without a sign; they are read
again after `MAX_AGE_SECONDS`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from netutil.agent.facts.pci import ABSENT, read_pci
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.parsers.pci import PciInfo

MAX_AGE_SECONDS = 10.0
MAX_FUNCTIONS = 1024
MAX_ABSENT = 256
"""Addresses that the host has no function of. A pod may name any address, and so any number of
these; they are held apart from the functions, which are as many as the host has."""
MAX_LOOKS = 32
"""Functions that are looked at on the event loop for one answer: some microseconds each."""

_Sign = tuple[int, int, int, str] | None
"""The directory of a function, and what its link to the driver holds; None: it is not there."""


@dataclass(frozen=True, slots=True)
class _Entry:
    sign: _Sign
    info: PciInfo | None
    read_at: float


class PciCache:
    """Looks functions up. What was read longest ago is released past `MAX_FUNCTIONS`, and of those
    that the host lacks past `MAX_ABSENT`.

    `held` is for the event loop, `look` for other threads, also for several at once. `directory`
    has the functions by address.
    """

    def __init__(self, host_root: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._host_root = host_root
        self._clock = clock
        self.directory = os.path.join(host_root, "sys/bus/pci/devices")
        self._lock = threading.Lock()
        self._present: OrderedDict[str, _Entry] = OrderedDict()
        self._absent: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    def held(self, addresses: Collection[str]) -> dict[str, PciInfo | None] | None:
        """Return functions by address, None for one that the host lacks.

        None instead of all of them if one is not held as it is now, or if they are too many to be
        looked at here. Addresses are as `normalise_pci_address` returns them. Never blocks.
        """
        found: dict[str, PciInfo | None] = {}
        if len(addresses) > MAX_LOOKS:
            return None
        for address in addresses:
            entry = self._entry(address)
            if entry is None or not self._is_current(address, entry):
                return None
            found[address] = entry.info
        return found

    def look(self, address: str) -> PciInfo | None:
        """Return a function, None if the host has none of that address. Blocks. Raises OSError."""
        entry = self._entry(address)
        if entry is not None and self._is_current(address, entry):
            return entry.info
        if normalise_pci_address(address) != address:  # no name of a directory: nothing to look at
            return read_pci(self._host_root, address)
        read_at, before = self._clock(), self._sign(address)
        info = read_pci(self._host_root, address)
        if self._sign(address) == before:
            self._hold(address, _Entry(before, info, read_at))
        return info

    def _hold(self, address: str, entry: _Entry) -> None:
        with self._lock:
            self._present.pop(address, None)
            self._absent.pop(address, None)
            if entry.info is None:
                entries, most = self._absent, MAX_ABSENT
            else:
                entries, most = self._present, MAX_FUNCTIONS
            entries[address] = entry
            if len(entries) > most:
                entries.popitem(last=False)
        self.age()

    def _entry(self, address: str) -> _Entry | None:
        return self._present.get(address) or self._absent.get(address)

    def age(self) -> None:
        """Release what is too old to be used."""
        with self._lock:
            too_old = self._clock() - MAX_AGE_SECONDS
            for entries in (self._present, self._absent):
                while entries and next(iter(entries.values())).read_at < too_old:
                    entries.popitem(last=False)

    def _is_current(self, address: str, entry: _Entry) -> bool:
        if self._clock() - entry.read_at > MAX_AGE_SECONDS:
            return False
        try:
            return self._sign(address) == entry.sign
        except OSError:  # the next reader gets the error
            return False

    def _sign(self, address: str) -> _Sign:
        directory = f"{self.directory}/{address}"
        try:
            found = os.stat(directory)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
        try:
            driver = os.readlink(f"{directory}/driver")
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            driver = ""
        return found.st_dev, found.st_ino, found.st_ctime_ns, driver
