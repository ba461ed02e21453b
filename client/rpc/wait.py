"""When a wait for an interface ends: it is there, time is up, or waiting is of no use. Pure.

Multus writes the network-status annotation after the pod's containers are resolved, so an
init container that needs a secondary interface has to wait for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from netutil.client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NetUtilError,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unreachable,
)
from netutil.client.models.core import PartError, as_exception
from netutil.client.models.devices import DeviceType, Interface, Interfaces
from netutil.client.models.observation import Observation
from netutil.client.rpc.retry import Reconnects

_MIN_STREAM_SECONDS = 0.001


class InterfaceWait:
    """One wait, from now until its timeout.

    Watch with a deadline of `remaining_seconds()` and `check` each observation; when the
    stream fails, sleep for `pause_seconds_after` and watch again.
    """

    def __init__(
        self,
        interface: str,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        reconnects: Reconnects | None = None,
    ) -> None:
        if not (timeout_seconds > 0 and math.isfinite(timeout_seconds)):
            msg = f"timeout_seconds is {timeout_seconds}: it takes a positive number of seconds"
            raise ValueError(msg)
        if not interface:
            sentence = "the name of an interface is empty"
            raise InvalidArgument(sentence, "INVALID_ARGUMENT", reason="NAME_EMPTY")
        self._interface = interface
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._deadline = clock() + timeout_seconds
        self._reconnects = reconnects or Reconnects()
        self._last: Observation | None = None

    def remaining_seconds(self) -> float:
        """Time that is left, never nothing."""
        return max(_MIN_STREAM_SECONDS, self._deadline - self._clock())

    def check(self, observation: Observation) -> Interface | None:
        """The interface, if it is there: reported, or live."""
        self._reconnects.succeeded()
        self._last = observation
        facts = observation.snapshot
        for interface in facts.interfaces.interfaces if facts.interfaces else ():
            if interface.name == self._interface:
                return interface
        for network in facts.network_status.status if facts.network_status else ():
            if network.interface == self._interface:
                kind = DeviceType.UNSPECIFIED
                return Interface(self._interface, kind, network, None, None, None, ())
        return None

    def pause_seconds_after(self, error: NetUtilError) -> float:
        """Time to sleep before the next stream. Raises what the caller is to get instead."""
        if isinstance(error, Unreachable):
            raise error
        if not isinstance(error, Unavailable | DeadlineExceeded | ResourceExhausted):
            raise error
        pause = self._reconnects.pause_seconds()
        if isinstance(error, DeadlineExceeded) or self._clock() + pause >= self._deadline:
            raise self._hopeless(error)
        return pause

    def _hopeless(self, error: NetUtilError) -> NetUtilError:
        if self._last is None:
            return error
        facts = self._last.snapshot
        for failed in facts.errors:
            if failed.part == "interfaces":
                return as_exception(failed)
        for hidden in _hidden(facts.interfaces):
            return as_exception(hidden)
        names = [one.name for one in facts.interfaces.interfaces] if facts.interfaces else []
        has = ", ".join(dict.fromkeys(filter(None, names))) or "none"
        if facts.interfaces and facts.interfaces.host_network:
            has += ", and the links of the node's own network, which are not listed"
        return NotFound(
            f"interface {self._interface} did not appear within {self._timeout_seconds:g} s;"
            f" the pod has: {has}",
            "NOT_FOUND",
            reason="INTERFACE_NOT_FOUND",
            read="the network-status annotation and the pod's network namespace",
            advice="see whether the pod asks for that network (annotation"
            " k8s.v1.cni.cncf.io/networks) and what its CNI plugins logged",
        )


def _hidden(interfaces: Interfaces | None) -> Iterator[PartError]:
    """What keeps an interface from being seen: reported networks, links or claims not known."""
    if interfaces is not None:
        errors = (interfaces.network_error, interfaces.device_info_error, interfaces.link_error)
        yield from filter(None, (*errors, interfaces.claims_error))
