"""An API server as far as list and watch of pods go, over TLS, with ways to misbehave.

It keeps pods and the events since its oldest resource version, answers pages, bookmarks
and 410 as Kubernetes API Concepts says, and does what `lists`, `watches` and `compares` hold first.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource

from tests.support.fakes.kubelet import Handler, KubeletDouble, pod_json, serving

NODE = "node-1"
PATH = "/api/v1/pods"
ONE_NAME = "metadata.name="
ONE_NAMESPACE = "/api/v1/namespaces/default/pods"
Pod = dict[str, Any]
Answer = Callable[[Handler, dict[str, str]], None]


def pod(number: int, name: str = "", annotations: dict[str, str] | None = None) -> Pod:
    """A running pod of the node; its UID and container ID contain its number."""
    made = pod_json(
        name or f"pod-{number}", f"{number:032x}", {"app": f"{number:064x}"}, annotations
    )
    made["spec"] = {"nodeName": NODE}
    return made


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


class ApiServer:
    """One thread for each connection.

    `lists`, `watches` and `compares` (lists of metadata alone) say what is done first, once each.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        address: tuple[str, int] = ("127.0.0.1", 0),
        node: str = NODE,
    ) -> None:
        self.double = KubeletDouble(self._answer, context, address)
        self.path, self.one_name = PATH, ONE_NAMESPACE
        self.selector: str | None = f"spec.nodeName={node}"
        self.served: list[str] = []  # versions of the group of `path`
        self.tokens = {"first-token"}
        self.needs_token = True  # else its context asks for a client certificate
        self.lists: list[Answer] = []
        self.watches: list[Answer] = []
        self.compares: list[Answer] = []
        self.asked: list[dict[str, str]] = []  # the queries of accepted requests
        self.compared: list[dict[str, str]] = []  # those for metadata alone
        self.of_one_name: list[dict[str, str]] = []  # those for the newest version
        self.lags = 0  # by so many versions the cache is behind
        self.paginates = False  # from its cache too, as an API server without one
        self.page_objects = 10_000  # the most of one page, whatever the limit
        self.oldest = 0
        self._version = 100
        self._pods: dict[str, Pod] = {}
        self._events: list[tuple[int, str, Pod]] = []
        self._ended = 0  # watches that began before are over
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return self.double.url

    @property
    def listed(self) -> list[dict[str, str]]:
        return [query for query in self.asked if "watch" not in query]

    @property
    def watched(self) -> list[dict[str, str]]:
        return [query for query in self.asked if "watch" in query]

    def put(self, made: Pod) -> None:
        uid = made["metadata"]["uid"]
        self._record("MODIFIED" if uid in self._pods else "ADDED", made)
        self._pods[uid] = made

    def delete(self, made: Pod) -> None:
        del self._pods[made["metadata"]["uid"]]
        self._record("DELETED", made)

    def bookmark(self) -> None:
        self._record("BOOKMARK", {"kind": "Pod", "metadata": {}})

    def error(self, made: dict[str, Any]) -> None:
        self._record("ERROR", made)

    def end_watches(self) -> None:
        """End them as a server does when their time is over."""
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def expire(self) -> None:
        """Forget what happened up to now."""
        with self._changed:
            self._version += 1000
            self.oldest = self._version
            self._events.clear()

    def restore(self, *pods: Pod, version: int = 50) -> None:
        """Go back to a backup: old versions, other pods, and the watches end as at a restart.

        As kubernetes/kubernetes#107457: a watch from a later version is accepted and silent.
        """
        with self._changed:
            self._events.clear()
            self._pods.clear()
            self._version = version
            for made in pods:
                made.setdefault("metadata", {})["resourceVersion"] = str(version)
                self._pods[made["metadata"]["uid"]] = made
            self._ended += 1
            self._changed.notify_all()

    def lose(self, made: Pod) -> None:
        """Store a pod without an event for the watches."""
        with self._changed:
            self._version += 1
            made["metadata"]["resourceVersion"] = str(self._version)
            self._pods[made["metadata"]["uid"]] = made

    def _record(self, kind: str, made: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            made.setdefault("metadata", {})["resourceVersion"] = str(self._version)
            self._events.append((self._version, kind, json.loads(json.dumps(made))))
            self._changed.notify_all()

    def _answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        scheme, _, token = handler.headers.get("Authorization", "").partition(" ")
        if self.needs_token and (scheme.lower() != "bearer" or token not in self.tokens):
            refuse(handler, 401, "Unauthorized", "Unauthorized")
        elif self.served and parts.path == self.path.rsplit("/", 2)[0]:
            versions = [{"groupVersion": f"g/{one}", "version": one} for one in self.served]
            handler.send(json.dumps({"kind": "APIGroup", "versions": versions}).encode())
        elif parts.path == self.one_name and query.get("fieldSelector", "").startswith(ONE_NAME):
            self.of_one_name.append(query)
            send_list(handler, [], self._version)
        elif parts.path != self.path or query.get("fieldSelector") != self.selector:
            refuse(handler, 404, "NotFound", "the server could not find the requested resource")
        elif "PartialObjectMetadataList" in handler.headers["Accept"]:
            self.compared.append(query)
            (self.compares.pop(0) if self.compares else self._compare)(handler, query)
        else:
            self.asked.append(query)
            first = self.watches if "watch" in query else self.lists
            then = self._watch if "watch" in query else self._list
            (first.pop(0) if first else then)(handler, query)

    def _compare(self, handler: Handler, query: dict[str, str]) -> None:
        pods = [{"metadata": one["metadata"]} for one in self._pods.values()]
        page, metadata = self._cut(pods, query)
        send_list(handler, page, self._version - self.lags, metadata)

    def _list(self, handler: Handler, query: dict[str, str]) -> None:
        version = query.get("resourceVersion", "")
        if version not in ("", "0") and int(version) > self._version:
            refuse(handler, 504, "Timeout", f"Timeout: Too large resource version: {version}")
            return
        pods, paging = self._cut(list(self._pods.values()), query)
        metadata = {"resourceVersion": str(self._version), **paging}
        document = {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods}
        handler.send(json.dumps(document).encode())

    def _cut(self, pods: list[Pod], query: dict[str, str]) -> tuple[list[Pod], dict[str, Any]]:
        """Return a page and what its metadata says of it. Any cache ignores the limit."""
        if query.get("resourceVersion") == "0" and not self.paginates:
            return pods, {}
        begin = int(query.get("continue", "0"))
        end = begin + min(int(query.get("limit", self.page_objects)), self.page_objects)
        if end >= len(pods):
            return pods[begin:], {}
        return pods[begin:end], {"continue": str(end), "remainingItemCount": len(pods) - end}

    def _watch(self, handler: Handler, query: dict[str, str]) -> None:
        version = int(query["resourceVersion"])
        if version < self.oldest:
            refuse(handler, 410, "Expired", "too old resource version")
            return
        ended, ends_at = self._ended, time.monotonic() + int(query["timeoutSeconds"])
        begin_stream(handler)
        while not handler.server.released.is_set():
            with self._changed:
                news = [event for event in self._events if event[0] > version]
                if not news and self._ended == ended:
                    self._changed.wait(timeout=0.1)
                    news = [event for event in self._events if event[0] > version]
                over = self._ended > ended or time.monotonic() > ends_at
            for number, kind, made in news:
                send_event(handler, kind, made)
                version = number
            if over:
                handler.wfile.write(b"0\r\n\r\n")
                return


def send_list(
    handler: Handler,
    items: list[dict[str, Any]],
    version: int,
    paging: dict[str, Any] | None = None,
) -> None:
    metadata = {"resourceVersion": str(version), **(paging or {})}
    document = {"kind": "PartialObjectMetadataList", "metadata": metadata, "items": items}
    handler.send(json.dumps(document).encode())


def refuse(
    handler: Handler, code: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> None:
    handler.send(json.dumps(status(code, reason, message)).encode(), code, headers)


def begin_stream(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send_chunk(handler: Handler, content: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))


def send_event(handler: Handler, kind: str, made: dict[str, Any]) -> None:
    send_chunk(handler, json.dumps({"type": kind, "object": made}).encode() + b"\n")


def refusing(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    return lambda handler, query: refuse(handler, code, reason, message, headers)


def streaming(*chunks: bytes, then: str = "end") -> Answer:
    """A watch that sends these, then ends, breaks off within a chunk, or says no more."""

    def answer(handler: Handler, query: dict[str, str]) -> None:
        del query
        begin_stream(handler)
        for chunk in chunks:
            send_chunk(handler, chunk)
        if then == "silence":
            handler.server.released.wait()
        handler.wfile.write(b"0\r\n\r\n" if then == "end" else b"ffff\r\nhalf of")
        handler.close_connection = True

    return answer


def holding(handler: Handler, query: dict[str, str]) -> None:
    """Read the request and never answer."""
    del query
    handler.server.released.wait()


@contextmanager
def serving_api(server: ApiServer) -> Iterator[ApiServer]:
    with serving(server.double):
        yield server


def api_server(context: ssl.SSLContext) -> AbstractContextManager[ApiServer]:
    return serving_api(ApiServer(context))


@asynccontextmanager
async def following(settings: dict[str, Any], **changed: Any) -> AsyncIterator[PodDirectory]:
    directory = PodDirectory(ApiServerSource(ApiServerSettings(**settings | changed)), 10)
    try:
        yield directory
    finally:
        await directory.close()


def names(directory: PodDirectory) -> set[str]:
    return {one.metadata.name for one in directory.last.pods} if directory.last else set()


async def shown(directory: PodDirectory, *expected: str) -> None:
    """Return once the list is of these."""
    async with asyncio.timeout(60):
        while names(directory) != set(expected):
            await directory.changed(directory.generation)
