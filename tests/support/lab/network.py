"""Real interfaces: veth pairs between a pod and a network namespace of the lab."""

from __future__ import annotations

import ipaddress
import itertools
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.lab.cgroups import Cgroups
from tests.support.lab.launch import NEW_NETWORK, Launch
from tests.support.lab.processes import LaunchFailed, Processes

_ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
_CGROUP = "fabric"


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a pod. `addresses` carry their prefix lengths."""

    name: str
    mac: str
    addresses: tuple[str, ...]
    peer: str


class Fabric:
    """The namespace of the other ends of the veth pairs.

    A network namespace of the lab, not the host's: it goes with the lab, its
    interfaces with it, and the host never sees one.
    """

    def __init__(self, processes: Processes, cgroups: Cgroups) -> None:
        self._processes = processes
        self._cgroups = cgroups
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._numbers = itertools.count(2)

    def next_address(self) -> str:
        """An address of the lab's pod network that no other pod of the lab has."""
        return str(ipaddress.IPv4Address("10.244.0.0") + next(self._numbers))

    def connect(
        self, pid: int, name: str, addresses: Sequence[str], mac: str | None, mtu: int | None = None
    ) -> Interface:
        """Make a pair, `name` in the network namespace of `pid`, both ends up."""
        peer = f"lab{secrets.token_hex(5)}"
        mac = mac or ":".join(f"{byte:02x}" for byte in (0x02, *secrets.token_bytes(5)))
        holder = self._holding_process()
        size = f" mtu {mtu}" if mtu else ""
        lines = [
            "link set lo up",
            f"link add {name} address {mac}{size} type veth peer name {peer}{size} netns {holder}",
            *(f"address add {address} dev {name}{_no_wait(address)}" for address in addresses),
            f"link set {name} up",
        ]
        self.ip(pid, lines)
        self.ip(holder, [f"link set {peer} up"])
        return Interface(name, mac, tuple(addresses), peer)

    def ip(self, pid: int, lines: Sequence[str]) -> None:
        """Run ip(8) with these commands in the network namespace of `pid`."""
        launch = Launch(
            argv=("ip", "-batch", "-"), env=_ENV, join=(f"/proc/{pid}/ns/net",), uid=0, gid=0
        )
        done = self._processes.run(launch, input="\n".join([*lines, ""]).encode())
        if done.returncode:
            raise LaunchFailed(f"ip {'; '.join(lines)}: {done.stderr.decode().strip()}")

    def _holding_process(self) -> int:
        with self._lock:
            if self._holder is None:
                self._cgroups.make(_CGROUP)
                self._holder = self._processes.start(
                    Launch(
                        argv=("sleep", "infinity"),
                        env=_ENV,
                        cgroups=self._cgroups.members_files(_CGROUP),
                        unshare=NEW_NETWORK,
                        output="/dev/null",
                    )
                )
            return self._holder


def _no_wait(address: str) -> str:
    """An IPv6 address is of no use until its duplicate detection has ended, a second later."""
    return " nodad" if ":" in address else ""
