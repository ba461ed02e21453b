"""Follows objects of the API server, by a list and a watch.

Kubernetes API Concepts, "Efficient detection of changes". What the reflector of client-go does,
with the package `kubernetes` for login and requests: its own `watch` and `informer` list again from
the database instead of a cache, decode into models, and detect neither silence nor versions that
went back.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Generic, TypeVar

from netutil.agent.errors import Unavailable
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http import errors
from netutil.agent.pods.http.apiserver_client import JSON, ApiServerClient
from netutil.agent.pods.http.apiserver_login import Login
from netutil.agent.pods.http.bounded import read_body
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.base import (
    MAX_BYTES,
    Comparison,
    ConfirmTiming,
    SourceKind,
    Take,
    unavailable,
)
from netutil.agent.pods.sources.listwatch import (
    EventType,
    Expired,
    Kind,
    Lines,
    Page,
    Versions,
    WatchFailed,
    decode_event,
    decode_page,
    decode_versions,
    is_older,
)
from netutil.agent.pods.store import ObjectStore
from netutil.agent.pods.threads import LatestToLoop, WorkerThread
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ReadTimeoutError

T = TypeVar("T")

_PAGE_OBJECTS = 500
_MAX_PAGES = 100
MAX_OBJECTS = _PAGE_OBJECTS * _MAX_PAGES
"""The most objects that are followed, those that are not kept too: their versions are.

A version takes about 250 bytes, 12 MB of the most objects.
"""
_CHUNK_BYTES = 64 * 1024
_CLOSE_SECONDS = 0.5
_FROM_ANY_CACHE = "0"
_METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, {JSON}"
"""Kubernetes API Concepts, "Alternate representations of resources": of objects their metadata."""
_NO_NAME = "netutil-no-such-pod"
"""Any name: a list of one name reads one key of etcd, whatever the cluster's size."""


@dataclass(frozen=True, slots=True)
class ReflectorSettings:
    """Whom to ask, and how long to wait.

    A watch lasts between `watch_seconds` and twice that; one from which nothing
    came for `silence_seconds`, not even a bookmark, is given up and begun again where it
    stood. Bookmarks come about once a minute, but 1.20 sent none for minutes. `compare_seconds`
    is the time for the list that a watch is compared with, `confirm` when that is asked for.
    """

    login: Login
    list_seconds: float = 30.0
    watch_seconds: int = 300
    silence_seconds: float = 100.0
    compare_seconds: float = 8.0
    confirm: ConfirmTiming = field(default_factory=ConfirmTiming)


@dataclass(frozen=True, slots=True)
class Selection(Generic[T]):
    """Which objects of a resource are followed.

    `namespaced` says where one name is asked for. `selector` is a field selector, "" for none.
    `keep` says which of the objects are held. `in_pages` is for what is many times more than is
    held: an API server answers a list from any cache whole, whatever the limit
    (kubernetes/kubernetes#70735), and the newest list in pages.
    """

    namespaced: bool
    selector: str = ""
    keep: Callable[[T], bool] = lambda _: True
    in_pages: bool = False

    @property
    def first_version(self) -> str:
        """Return the resource version to list from where none has been seen."""
        return "" if self.in_pages else _FROM_ANY_CACHE


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """What is followed: the kind, and where it is.

    `find_path` returns the path of the list of all namespaces; it may ask the API server, and
    raises `Unavailable`. `path` is what errors name. `threads` begins the names of two threads.
    `advice` is what is to be done about a status of HTTP.
    """

    kind: Kind[T]
    path: str
    find_path: Callable[[ApiServerClient], str]
    selection: Selection[T]
    threads: str
    advice: Mapping[int, str] = field(default_factory=dict)


class Reflector(Generic[T]):
    """Follows a resource on one thread, and compares it with lists on another."""

    # All agents of a cluster lose the same API server at the same moment.
    first_pause_seconds = 2.0
    longest_pause_seconds = 30.0

    def __init__(
        self,
        kind: SourceKind,
        resource: Resource[T],
        settings: ReflectorSettings,
        flaws: Flaws | None = None,
    ) -> None:
        """`flaws` counts what of the objects is not understood."""
        self._kind = kind
        self._resource = resource
        self._settings = settings
        self._flaws = flaws or Flaws()
        self._requests = ApiServerClient(settings.login, resource.path, resource.advice)
        self._worker = WorkerThread(resource.threads)
        self._comparing = ApiServerClient(settings.login, resource.path, resource.advice)
        self._comparer = WorkerThread(f"{resource.threads}-compare")
        found = resource.kind
        self._store = ObjectStore(found.uid_of, found.most, found.most_of)
        self._observed_at = datetime.now(UTC)
        self._path = ""  # "" = find it first
        self._version = ""  # to watch from; "" = list first
        self._list_from = resource.selection.first_version
        self._lock = threading.Lock()  # of `_versions` and `_version` where they change together
        self._versions: dict[str, str] = {}  # of each object that the watch has brought, by its UID
        self._starting_over = False
        self._went_back = False

    @property
    def kind(self) -> SourceKind:
        """Return how a sentence names it."""
        return self._kind

    def describe(self) -> str:
        """Return the address, or the kubeconfig that holds it."""
        return self._requests.url

    @property
    def confirm_timing(self) -> ConfirmTiming:
        """Return when the watch is compared with a list."""
        return self._settings.confirm

    async def compare(self) -> Comparison:
        """Compare with the API server's cache: of each pod its metadata. Raises `Unavailable`.

        The list may come from another API server than the watch, whose cache is a little behind or
        ahead; only a version that etcd itself denies is older.
        """
        return await self._comparer.run(self._compare)

    def start_over(self) -> None:
        """End the watch; the next follows a list."""
        self._starting_over = True
        self._requests.interrupt()

    async def follow(self, take: Take[T]) -> None:
        """Hand over the objects until the watch ends. Raises `Unavailable`."""
        handover = LatestToLoop(asyncio.get_running_loop(), take)
        stream = self._worker.run(partial(self._stream, handover))
        try:
            # Cancelled alone, the future would leave the thread in its read.
            await asyncio.shield(stream)
        except asyncio.CancelledError:
            stream.add_done_callback(_forget)
            self._requests.abort()
            raise
        finally:
            handover.close()

    async def close(self) -> None:
        """End the watch and let the threads end. No other follows."""
        self._requests.abort()
        self._comparing.abort()
        await asyncio.gather(self._worker.stop(_CLOSE_SECONDS), self._comparer.stop(_CLOSE_SECONDS))

    def _stream(self, handover: LatestToLoop[T]) -> None:
        """Watch until the watch ends; list first if there is no version to go on from. Blocks."""
        if self._starting_over:
            # Not older than what was seen, unless the database itself is older now.
            first = self._resource.selection.first_version
            self._list_from = first if self._went_back else self._version
            self._version, self._starting_over = "", False
        if self._version:
            try:
                self._watch(handover, resumed=True)
            except Expired:
                # As after a restart of the API server: no failure, so that the list follows now.
                self._version = ""
            else:
                return
        try:
            self._list()
        except Expired:
            self._list_from = ""  # no cache has it: ask for the newest
            return
        self._give(handover)
        try:
            self._watch(handover, resumed=False)
        except Expired:
            self._version = ""

    def _list(self) -> None:
        """Read the whole list.

        From a cache of the API server, as it is or not older than what was seen; from the database
        only if none has that, since it has no index of nodes and would read all pods, and what is
        to come in pages.
        """
        asked = datetime.now(UTC)
        self._path = self._resource.find_path(self._requests)
        page = first = self._page("")
        objects, versions = self._kept(first), dict(first.versions.by_uid)
        for _ in range(_MAX_PAGES):
            if not page.next_page or len(objects) > self._resource.kind.most:
                break
            page = self._page(page.next_page)
            objects += self._kept(page)
            versions |= page.versions.by_uid
        else:
            raise self._unusable(PodListMalformed(f"it has more than {_MAX_PAGES} pages"))
        try:
            self._store.replace(objects)
        except PodListMalformed as error:
            raise self._unusable(error) from None
        with self._lock:
            self._version, self._versions = first.version, versions
        self._list_from = first.version
        self._observed_at = asked

    def _kept(self, page: Page[T]) -> list[T]:
        return [one for one in page.objects if self._resource.selection.keep(one)]

    def _page(self, token: str) -> Page[T]:
        query = {**self._selected(), "limit": str(_PAGE_OBJECTS)}
        if token:
            query["continue"] = token
        elif self._list_from:
            query["resourceVersion"] = self._list_from
            if self._list_from != _FROM_ANY_CACHE:
                query["resourceVersionMatch"] = "NotOlderThan"
        seconds = self._settings.list_seconds
        with self._requests.get(
            self._path, query, read_seconds=seconds, whole_seconds=seconds, gzip=True
        ) as response:
            return decode_page(self._resource.kind, read_body(response, MAX_BYTES), self._flaws)

    def _compare(self) -> Comparison:
        """Ask for the versions of the pods, and compare them. Blocks. Raises `Unavailable`."""
        asked, known_version = datetime.now(UTC), self._version
        if not self._path:
            raise self._being_listed()
        try:
            listed = self._listed_versions()
            self._went_back = is_older(listed.version, known_version) and is_older(
                self._newest_version(), known_version
            )
        except Expired as error:
            raise errors.request_rejected(
                self._requests.messages, HTTPStatus.GONE, str(error), self.describe()
            ) from None
        with self._lock:
            brought = dict(self._versions)
        if not known_version or self._starting_over:
            raise self._being_listed()
        uids = brought.keys() | listed.by_uid.keys()
        pairs = ((uid, brought.get(uid, ""), listed.by_uid.get(uid, "")) for uid in uids)
        differences = frozenset(one for one in pairs if one[1] != one[2])
        return Comparison(asked, differences, self._went_back)

    def _being_listed(self) -> Unavailable:
        plural = self._resource.kind.plural
        return unavailable(
            f"The API server's {plural} are being listed now.", self.describe(), "Ask again."
        )

    def _listed_versions(self) -> Versions:
        """Return the versions of the objects that are followed."""
        version = self._resource.selection.first_version
        how = {"resourceVersion": version} if version else {"limit": str(_PAGE_OBJECTS)}
        query = {**self._selected(), **how}
        found = first = self._versions_page(query)
        by_uid = dict(first.by_uid)
        for _ in range(_MAX_PAGES):
            if not found.next_page:
                return Versions(by_uid, first.version, "")
            found = self._versions_page({**query, "continue": found.next_page})
            by_uid |= found.by_uid
        raise self._unusable(PodListMalformed(f"it has more than {_MAX_PAGES} pages"))

    def _newest_version(self) -> str:
        """Return the version that etcd is at: a list of one name, from no cache."""
        query = {"fieldSelector": f"metadata.name={_NO_NAME}", "limit": "1"}
        group, _, plural = self._path.rpartition("/")
        one = (
            f"{group}/namespaces/default/{plural}"
            if self._resource.selection.namespaced
            else self._path
        )
        return self._versions_page(query, one).version

    def _versions_page(self, query: dict[str, str], path: str = "") -> Versions:
        seconds = self._settings.compare_seconds
        with self._comparing.get(
            path or self._path,
            query,
            read_seconds=seconds,
            whole_seconds=seconds,
            gzip=True,
            accept=_METADATA,
        ) as response:
            return decode_versions(read_body(response, MAX_BYTES))

    def _watch(self, handover: LatestToLoop[T], *, resumed: bool) -> None:
        seconds = self._settings.watch_seconds
        lasts = random.randint(seconds, 2 * seconds)  # noqa: S311 - no secret
        query = {
            **self._selected(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(lasts),
        }
        silence = self._settings.silence_seconds
        ends_at = time.monotonic() + lasts + silence
        with self._requests.get(
            self._path, query, read_seconds=silence, whole_seconds=lasts + 3 * silence, gzip=False
        ) as response:
            if resumed:
                # An API server accepts a version that it has not given out yet, and says nothing.
                self._give(handover, resumed=True)
            with suppress(ReadTimeoutError):  # silence is an end, and no failure
                self._read(response, handover, ends_at, resumed=resumed)

    def _read(
        self,
        response: BaseHTTPResponse,
        handover: LatestToLoop[T],
        ends_at: float,
        *,
        resumed: bool,
    ) -> None:
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
                self._give(handover, resumed=resumed)
            if time.monotonic() > ends_at:  # a server that does not end it in time
                return
        if not lines.is_between:
            raise ConnectionError("the watch ended within an event")

    def _apply(self, line: bytes) -> None:
        event = decode_event(self._resource.kind, line, self._flaws)
        if event.type is EventType.DELETED:
            self._store.remove(event.uid)
        elif event.object is not None:
            if self._resource.selection.keep(event.object):
                self._store.put(event.object)
            else:
                self._store.remove(event.uid)
        with self._lock:
            # An event without a version of its own is sent again if the watch starts again.
            self._version = event.version or self._version
            if event.type is EventType.DELETED:
                self._versions.pop(event.uid, None)
            elif event.type is not EventType.BOOKMARK and event.uid:
                self._versions[event.uid] = event.version
        if len(self._versions) > MAX_OBJECTS:
            plural = self._resource.kind.plural
            raise PodListMalformed(f"there are more than {MAX_OBJECTS} {plural}")

    def _give(self, handover: LatestToLoop[T], *, resumed: bool = False) -> None:
        handover.give(self._store.pods, self._observed_at, resumed=resumed)

    def _unusable(self, error: PodListMalformed | WatchFailed) -> Unavailable:
        if isinstance(error, PodListMalformed):
            return errors.malformed(self._requests.messages, error, self.describe())
        plural = self._resource.kind.plural
        return unavailable(
            f"The API server ended the watch of {plural} with an error: {error}.",
            self.describe(),
            f"The agent lists the {plural} again.",
        )

    def _selected(self) -> dict[str, str]:
        selector = self._resource.selection.selector
        return {"fieldSelector": selector} if selector else {}


def _forget(stream: asyncio.Future[None]) -> None:
    """Retrieve the exception of an aborted stream, for which no caller waits."""
    if not stream.cancelled():
        stream.exception()
