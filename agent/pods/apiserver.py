"""The pods of this node from the API server: a list, and a watch from there on.

Kubernetes API Concepts, "Efficient detection of changes". What the reflector of client-go
does, done with the HTTP library that the agent has anyway: `import kubernetes` costs 19 MiB
before its first request and 41 MiB with the class that lists pods, of 64 MiB for the whole
agent. A test lets that package read the same server, so that the double speaks as it expects.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from netutil.agent.errors import Unavailable
from netutil.agent.pods.body import read_body
from netutil.agent.pods.failures import malformed
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.handover import Handover
from netutil.agent.pods.listwatch import (
    EventType,
    Expired,
    Lines,
    Page,
    WatchFailed,
    decode_event,
    decode_page,
)
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.party import API_SERVER
from netutil.agent.pods.requests import ApiServerAddress, Requests
from netutil.agent.pods.source import LARGEST_BYTES, MOST_PODS, Take, unavailable
from netutil.agent.pods.store import PodStore
from netutil.agent.pods.worker import Worker
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ReadTimeoutError

_PAGE_PODS = 250
_MOST_PAGES = 100
_CHUNK_BYTES = 64 * 1024
_QUIET_SECONDS = 1.0
_CLOSE_SECONDS = 0.5
_FROM_ANY_CACHE = "0"


@dataclass(frozen=True, slots=True)
class ApiServerSettings:
    """Whom to ask for which node, and how long to wait.

    A watch lasts between `watch_seconds` and twice that; one from which nothing
    came for `silence_seconds`, not even a bookmark, is given up and begun again where it
    stood. Bookmarks come about once a minute, but 1.20 sent none for minutes.
    """

    address: ApiServerAddress
    node_name: str
    list_seconds: float = 30.0
    watch_seconds: int = 300
    silence_seconds: float = 100.0


class ApiServerSource:
    """Follows one node's pods, on one thread."""

    # All agents of a cluster lose the same API server at the same moment.
    first_pause_seconds = 2.0
    longest_pause_seconds = 30.0

    def __init__(self, settings: ApiServerSettings, flaws: Flaws | None = None) -> None:
        """Raise ValueError for a URL that is not https, or names no host.

        `flaws` counts what of the pods is not understood.
        """
        self._settings = settings
        self._flaws = flaws or Flaws()
        self._requests = Requests(settings.address)
        self._worker = Worker("pod-source")
        self._store = PodStore()
        self._observed_at = datetime.now(UTC)
        self._version = ""  # to watch from; "" = list first
        self._list_from = _FROM_ANY_CACHE

    def describe(self) -> str:
        """Return the address."""
        return self._requests.url

    async def follow(self, take: Take) -> None:
        """Hand over the node's pods until the watch ends. Raises `Unavailable`."""
        handover = Handover(asyncio.get_running_loop(), take)
        stream = self._worker.run(partial(self._stream, handover))
        try:
            # Cancelled alone, the future would leave the thread in its read.
            await asyncio.shield(stream)
        except asyncio.CancelledError:
            stream.add_done_callback(_forget)
            self._requests.cut()
            raise
        finally:
            handover.close()

    async def close(self) -> None:
        """End the watch and let the thread end. No other follows."""
        self._requests.cut()
        await self._worker.stop(_CLOSE_SECONDS)

    def _stream(self, handover: Handover) -> None:
        """List if need be, then watch until the watch ends. Blocks."""
        if not self._version:
            try:
                self._list()
            except Expired:
                self._list_from = ""  # no cache has it: ask for the newest
                return
            self._give(handover)
        try:
            self._watch(handover)
        except Expired:
            self._version = ""

    def _list(self) -> None:
        """Read the whole list.

        From a cache of the API server, as it is or not older than what was seen; only if
        none has that, from the database: it has no index of nodes and would read all pods.
        """
        asked = datetime.now(UTC)
        page = first = self._page("")
        pods = list(first.pods)
        for _ in range(_MOST_PAGES):
            if not page.next_page or len(pods) > MOST_PODS:
                break
            page = self._page(page.next_page)
            pods += page.pods
        else:
            raise self._unusable(PodListMalformed(f"it has more than {_MOST_PAGES} pages"))
        try:
            self._store.replace(pods)
        except PodListMalformed as error:
            raise self._unusable(error) from None
        self._version = self._list_from = first.version
        self._observed_at = asked

    def _page(self, token: str) -> Page:
        query = {"fieldSelector": self._selector(), "limit": str(_PAGE_PODS)}
        if token:
            query["continue"] = token
        elif self._list_from:
            query["resourceVersion"] = self._list_from
            if self._list_from != _FROM_ANY_CACHE:
                query["resourceVersionMatch"] = "NotOlderThan"
        seconds = self._settings.list_seconds
        with self._requests.get(
            query, read_seconds=seconds, whole_seconds=seconds, gzip=True
        ) as response:
            return decode_page(read_body(response, LARGEST_BYTES), self._flaws)

    def _watch(self, handover: Handover) -> None:
        seconds = self._settings.watch_seconds
        lasts = random.randint(seconds, 2 * seconds)  # noqa: S311 - no secret
        query = {
            "fieldSelector": self._selector(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(lasts),
        }
        silence = self._settings.silence_seconds
        asked = datetime.now(UTC)
        ends_at = time.monotonic() + lasts + silence
        with self._requests.get(
            query, read_seconds=silence, whole_seconds=lasts + 3 * silence, gzip=False
        ) as response:
            # What happened since that version, or that the version is too old, comes at once.
            # So quiet confirms the list like a bookmark, which some servers do not send.
            handover.give_after(_QUIET_SECONDS, self._store.pods, asked)
            with suppress(ReadTimeoutError):  # silence is an end, and no failure
                self._read(response, handover, ends_at)

    def _read(self, response: BaseHTTPResponse, handover: Handover, ends_at: float) -> None:
        lines = Lines()
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            try:
                found = lines.feed(chunk)
                for line in found:
                    self._apply(line)
            except (PodListMalformed, WatchFailed) as error:
                self._version = ""  # a list makes good whatever was missed
                raise self._unusable(error) from None
            if found:
                self._observed_at = datetime.now(UTC)
                self._give(handover)
            if time.monotonic() > ends_at:  # a server that does not end it in time
                return
        if not lines.is_between:
            raise ConnectionError("the watch ended within an event")

    def _apply(self, line: bytes) -> None:
        event = decode_event(line, self._flaws)
        if event.type is EventType.DELETED:
            self._store.remove(event.uid)
        elif event.pod is not None:
            self._store.put(event.pod)
        # An event without a version of its own is told again, should the watch begin anew.
        self._version = event.version or self._version

    def _give(self, handover: Handover) -> None:
        handover.give(self._store.pods, self._observed_at)

    def _unusable(self, error: PodListMalformed | WatchFailed) -> Unavailable:
        if isinstance(error, PodListMalformed):
            return malformed(API_SERVER, error, self.describe())
        return unavailable(
            f"The API server ended the watch of pods with an error: {error}.",
            self.describe(),
            "The agent lists the pods anew.",
        )

    def _selector(self) -> str:
        return f"spec.nodeName={self._settings.node_name}"


def _forget(stream: asyncio.Future[None]) -> None:
    """Take note of a failure that nobody waits for: that of a stream that was cut."""
    if not stream.cancelled():
        stream.exception()
