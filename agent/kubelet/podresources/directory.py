"""Cache of the kubelet's allocations, shared by all callers.

One List serves all waiting calls; an answer is used for `refresh_seconds`. A
container that the last answer lacks, or that was started after it, is asked for
again: with Get where this kubelet serves it, else with another List, no more often
than once in a second. So a pod that was created again under its old name is not given the old
one's devices: the API names pods by namespace and name only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from netutil.agent.backoff import Backoff
from netutil.agent.errors import FailedPrecondition, Reason, Unavailable
from netutil.agent.kubelet.podresources import errors
from netutil.agent.kubelet.podresources.client import PodResourcesClient
from netutil.agent.kubelet.podresources.errors import MethodNotServed, PodNotFound
from netutil.agent.kubelet.podresources.model import (
    Asked,
    ContainerResources,
    Key,
    PodEntry,
    absent,
)

_LOG = logging.getLogger(__name__)

_CALL_SECONDS = 5.0
_MISS_SECONDS = 1.0
_PAUSE_SECONDS = 0.5
_WITHOUT_GET_SECONDS = 300.0
_GETS_PER_SECOND = 20
"""The kubelet lets all callers of the node ask 100 times a second together."""
_NEVER = -float("inf")


@dataclass(slots=True)
class ResourceStats:
    """What was asked of the kubelet since the start."""

    fetches: int = 0
    failures: int = 0
    gets: int = 0


class ResourceDirectory:
    """Answers what a container has to itself. Used on one event loop."""

    def __init__(
        self,
        socket_path: str,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        hidden_resource: str = "",
    ) -> None:
        """Answer without the devices of `hidden_resource`, the agent's own device plugin's."""
        self._kubelet = PodResourcesClient(socket_path, _CALL_SECONDS, hidden_resource)
        self._path = socket_path
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._entries: dict[Key, PodEntry] = {}
        self._listed = Asked(_NEVER, datetime.min.replace(tzinfo=UTC))
        self._listing: asyncio.Task[None] | None = None
        self._without_get_until = _NEVER
        self._gets_since, self._gets_now = _NEVER, 0
        self._error: Unavailable | None = None
        # A caller waits: after a failure the next attempt is due within the time of a miss.
        self._backoff = Backoff(_PAUSE_SECONDS, _MISS_SECONDS, jitter=0)
        self._retry_from = _NEVER
        self.stats = ResourceStats()

    def __len__(self) -> int:
        return len(self._entries)

    def age(self) -> None:
        """Release entries that are too old to answer a call."""
        oldest = self._clock() - 2 * self._refresh_seconds  # a newer one may be under way
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.asked.monotonic_seconds >= oldest
        }

    async def get_container(
        self,
        namespace: str,
        pod_name: str,
        container_name: str,
        *,
        not_before: datetime | None,
        timeout_seconds: float,
    ) -> ContainerResources:
        """Return what a container has, as the kubelet said it after `not_before`.

        Raises `Unavailable` if the kubelet cannot be asked, `FailedPrecondition` if it knows two
        pods of that name, or a pod without that container.
        """
        key = (namespace, pod_name)
        called_at = self._clock()

        def enough(entry: PodEntry | None) -> bool:
            if entry is None or not self._is_fresh(entry):
                return entry is not None and entry.asked.monotonic_seconds >= called_at
            if not_before is not None and entry.asked.at < not_before:
                return False
            return entry.pods > 1 or container_name in entry.containers

        entry = self._entries.get(key)
        if not enough(entry):
            try:
                async with asyncio.timeout(timeout_seconds):
                    entry = await self._fresh(key, called_at, enough)
            except TimeoutError:
                raise errors.unavailable(
                    "The kubelet's PodResources did not come within the time that the caller has.",
                    self._path,
                    "Try again; the agent goes on waiting for the kubelet.",
                ) from None
        return _container(entry, key, container_name, self._path)

    def known(
        self, key: Key, container_name: str, not_before: datetime | None
    ) -> ContainerResources | None:
        """Return what `get_container` would without asking the kubelet, None if it would ask."""
        entry = self._entries.get(key)
        if entry is None or not self._is_fresh(entry):
            return None
        return self.held(key, container_name, not_before)

    def held(
        self, key: Key, container_name: str, not_before: datetime | None
    ) -> ContainerResources | None:
        """Return what the kubelet said last of a container, of any age since a time (UTC).

        None where it did not, or reports two pods of that name. The kubelet is not asked.
        """
        entry = self._entries.get(key)
        if entry is None or entry.pods > 1:
            return None
        if not_before is not None and entry.asked.at < not_before:
            return None
        return entry.containers.get(container_name)

    def _is_fresh(self, entry: PodEntry) -> bool:
        return self._clock() - entry.asked.monotonic_seconds <= self._refresh_seconds

    async def refresh(self) -> None:
        """Read the list again if it is older than `refresh_seconds`, for all callers of `peek`.

        A failure raises nothing: `peek` returns it.
        """
        now = self._clock()
        if now - self._listed.monotonic_seconds >= self._refresh_seconds and now > self._retry_from:
            await asyncio.shield(self._begin_list())

    @property
    def last_error(self) -> Unavailable | None:
        """Return why the last list failed, None after a success."""
        return self._error

    def peek(self, namespace: str, pod_name: str, container_name: str) -> object:
        """Return what differs as soon as `get_container` would answer something else.

        The value is of the kubelet's last answer; the kubelet is not asked.
        """
        if self._error is not None:
            return self._error.reason
        entry = self._entries.get((namespace, pod_name))
        if entry is None:
            return None
        found = entry.containers.get(container_name)
        if found is None:
            return entry.pods
        return found.devices, found.cpu_ids, found.memory, found.dynamic_resources

    def exclusive_cpus(self) -> dict[tuple[str, str, str], tuple[int, ...]]:
        """Return the exclusive CPUs of each container that has any, as the kubelet last said.

        The keys are namespace, pod and container, in rising order. Call `refresh` before. Raises
        `Unavailable` if the last list failed. The kubelet reports two pods of one name
        without their UIDs: then raises `FailedPrecondition`.
        """
        if self._error is not None:
            raise self._error.without_frames()
        found: dict[tuple[str, str, str], tuple[int, ...]] = {}
        for (namespace, name), entry in sorted(self._entries.items()):
            if entry.pods > 1:
                raise _ambiguous(entry, (namespace, name), self._path)
            for container, resources in sorted(entry.containers.items()):
                if resources.cpu_ids:
                    found[namespace, name, container] = resources.cpu_ids
        return found

    async def close(self) -> None:
        """Close the connection; waiting calls end with an error."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        await self._kubelet.close()

    async def _fresh(
        self, key: Key, called_at: float, enough: Callable[[PodEntry | None], bool]
    ) -> PodEntry | None:
        """Return the entry of an answer asked for after the call, or one that is enough."""
        listed_lately = self._clock() - self._listed.monotonic_seconds < self._refresh_seconds
        if listed_lately and self._may_get():
            got = await self._get(key)
            if got is not None:
                return got
        while not enough(self._entries.get(key)) and self._listed.monotonic_seconds < called_at:
            self._raise_while_pausing()
            wait = self._listed.monotonic_seconds + _MISS_SECONDS - self._clock()
            if self._listing is None and wait > 0:
                await asyncio.sleep(wait)
                continue
            # One caller's cancellation must not end what others wait for.
            await asyncio.shield(self._begin_list())
        return self._entries.get(key)

    def _begin_list(self) -> asyncio.Task[None]:
        if self._listing is None:
            self._listing = asyncio.create_task(self._list())
        return self._listing

    async def _list(self) -> None:
        """Read the whole list. A failure is kept for a short pause only, and raised by `_fresh`."""
        asked = Asked(self._clock(), datetime.now(UTC))
        self.stats.fetches += 1
        try:
            self._entries = await self._kubelet.list_pods(asked)
        except Exception as raised:  # noqa: BLE001 - whatever a kubelet sends, the agent goes on
            if isinstance(raised, Unavailable):
                error = raised
            else:
                _LOG.exception("pod resources: %s failed", self._path)
                error = errors.unexpected_error(raised, self._path)
            self.stats.failures += 1
            self._retry_from = self._clock() + self._backoff.pause()
            self._error = error.with_retry_after(_PAUSE_SECONDS)
        else:
            self._listed, self._error = asked, None
            self._backoff.reset()
        finally:
            self._listing = None

    def _raise_while_pausing(self) -> None:
        remaining = self._retry_from - self._clock()
        if self._error is not None and remaining > 0:
            raise self._error.with_retry_after(max(0.1, remaining))

    def _may_get(self) -> bool:
        now = self._clock()
        if now < self._without_get_until:
            return False
        if now - self._gets_since >= 1:
            self._gets_since, self._gets_now = now, 0
        self._gets_now += 1
        return self._gets_now <= _GETS_PER_SECOND

    async def _get(self, key: Key) -> PodEntry | None:
        """Return what Get says of one pod, None where this kubelet cannot say it."""
        asked = Asked(self._clock(), datetime.now(UTC))
        self.stats.gets += 1
        try:
            entry = await self._kubelet.get_pod(key, asked)
        except MethodNotServed:
            self._without_get_until = self._clock() + _WITHOUT_GET_SECONDS
            return None
        except PodNotFound:
            entry = absent(asked)
        except Unavailable:
            return None  # List says why
        self._entries[key] = entry
        return entry


def _container(
    entry: PodEntry | None, key: Key, container_name: str, read: str
) -> ContainerResources:
    full_name = "/".join(key)
    if entry is not None and entry.pods > 1:
        raise _ambiguous(entry, key, read)
    found = entry.containers.get(container_name) if entry is not None else None
    if found is None:
        raise FailedPrecondition(
            Reason.CONTAINER_WITHOUT_RESOURCES,
            f"The kubelet's PodResources do not list container {container_name!r} of {full_name}.",
            read=read,
            advice="It lists running containers; init containers that end and ephemeral ones have"
            " no resources of their own.",
        )
    return found


def _ambiguous(entry: PodEntry, key: Key, read: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.POD_RESOURCES_AMBIGUOUS,
        f"The kubelet has {entry.pods} pods named {'/'.join(key)}, and reports resources by name.",
        read=read,
        advice="Ask again once the older one has ended.",
    )
