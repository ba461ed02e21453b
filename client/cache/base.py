"""The newest snapshot, read without a call: the part that both caches share.

Reading costs a dictionary look-up, so it is cheap enough for a hot loop.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from netutil.client.errors import NetUtilError, Unavailable
from netutil.client.models.core import CPU, Environment, NetworkStatus, Pod, as_exception
from netutil.client.models.devices import All, Hugepages, Interfaces, Resources
from netutil.client.models.observation import PARTS, Observation, changed_parts
from netutil.client.rpc.endpoint import ForkGuard

_LOG = logging.getLogger(__name__)

OnChange = Callable[[Observation], object]
"""Called with each observation that differs from the one before."""


class Reading(NamedTuple):
    """The newest facts, whether they are current, and their age.

    `fresh` is whether the stream that brought them is up: then nothing has changed since.
    `age_seconds` is the time since they arrived.
    """

    facts: All
    fresh: bool
    age_seconds: float


class _State(NamedTuple):
    """The state at one moment. Replaced as a whole, because other threads read it."""

    observation: Observation | None
    received: float
    lost: NetUtilError | None


class CacheBase:
    """Answers from the newest snapshot, in the process that made this object only.

    Every method raises RuntimeError in a process forked from that one: the facts are about
    another process. Before the first snapshot they raise the error that delays it.
    """

    def __init__(self, on_change: OnChange | None) -> None:
        self._fork_guard = ForkGuard()
        self._pid = os.getpid()
        self._on_change = on_change
        self._parts: dict[str, Any] = {}
        self._state = _State(None, 0.0, _not_yet())

    @property
    def fresh(self) -> bool:
        """Whether the stream is up, so that the agent would have sent any change."""
        self._fork_guard.check()
        return self._state.lost is None

    @property
    def age_seconds(self) -> float:
        """Seconds since the newest snapshot came."""
        return self.current().age_seconds

    @property
    def lost(self) -> NetUtilError | None:
        """Why the facts are not fresh, None if they are."""
        self._fork_guard.check()
        return self._state.lost

    def current(self) -> Reading:
        """All facts with their freshness and age, of one moment."""
        self._fork_guard.check()
        observation, received, lost = self._state
        if observation is None:
            raise lost or _not_yet()
        return Reading(observation.snapshot, lost is None, time.monotonic() - received)

    def cpu(self) -> CPU:
        """The CPUs of the process's container, with their topology."""
        cpu: CPU = self._part("cpu")
        return cpu

    def environment(self) -> Environment:
        """All variables that the process was started with."""
        environment: Environment = self._part("environment")
        return environment

    def network_status(self) -> NetworkStatus:
        """The pod's networks, as its CNI plugins reported them."""
        networks: NetworkStatus = self._part("network_status")
        return networks

    def pod(self) -> Pod:
        """The pod and container of the process."""
        pod: Pod = self._part("pod")
        return pod

    def interfaces(self) -> Interfaces:
        """The pod's interfaces."""
        interfaces: Interfaces = self._part("interfaces")
        return interfaces

    def hugepages(self) -> Hugepages:
        """Huge pages of the pod's spec, of the process's container, and of the node."""
        hugepages: Hugepages = self._part("hugepages")
        return hugepages

    def resources(self) -> Resources:
        """Devices, exclusive CPUs and memory that the kubelet gave to the container."""
        resources: Resources = self._part("resources")
        return resources

    def _part(self, name: str) -> Any:
        if os.getpid() != self._pid:
            self._fork_guard.check()
        part = self._parts.get(name)
        return self._looked_up(name) if part is None else part

    def _looked_up(self, name: str) -> Any:
        """Return a part of what is there by now, or raise why it is not."""
        observation, _, lost = self._state
        if observation is None:
            raise lost or _not_yet()
        part = getattr(observation.snapshot, name)
        if part is None:
            raise _missing(name, observation)
        return part

    def _receive(self, observation: Observation) -> None:
        """Replace the snapshot and call `on_change` if it differs."""
        before = self._state.observation
        if observation.version == 1 and before is not None:  # the first of a new stream
            changed = changed_parts(before.snapshot, observation.snapshot)
            observation = replace(observation, changed=changed)
        self._parts = {name: getattr(observation.snapshot, name) for name in PARTS}
        self._state = _State(observation, time.monotonic(), None)
        if self._on_change is not None and observation.changed:
            try:
                self._on_change(observation)
            except Exception:  # noqa: BLE001 - on the cache's own thread: no caller gets it
                _LOG.exception("netutil: on_change failed")

    def _lose(self, error: NetUtilError) -> None:
        """Mark what is held as stale."""
        self._state = self._state._replace(lost=error)


def _missing(name: str, observation: Observation) -> NetUtilError:
    for error in observation.snapshot.errors:
        if error.part == name:
            return as_exception(error)
    return NetUtilError(f"the agent's snapshot has no part {name}", "INTERNAL")


def closed() -> NetUtilError:
    """Why the facts of a cache that watches no more are not fresh."""
    return Unavailable("this cache is closed", "UNAVAILABLE", reason="CACHE_CLOSED")


def _not_yet() -> NetUtilError:
    return Unavailable("no snapshot has come yet", "UNAVAILABLE", reason="NO_SNAPSHOT_YET")
