"""The synchronous cache: a thread watches, and any thread reads what it holds."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self

from netutil.client.cache.base import CacheBase, OnChange, closed
from netutil.client.errors import NetUtilError
from netutil.client.models.observation import Observation
from netutil.client.rpc.retry import Reconnects
from netutil.client.rpc.sync import Client, Stream


class Cached(CacheBase):
    """What `Client` answers about this process, kept up to date and read at once.

    `with Cached() as facts:` returns when the first snapshot is there, and raises what kept it
    away for `timeout_seconds`. After that the facts stay readable whatever becomes of the agent:
    `fresh` says whether it vouches for them, and a thread goes on trying to reach it.
    `on_change` is called from that thread, with each `Observation` that differs from the last.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        timeout_seconds: float = 5.0,
        on_change: OnChange | None = None,
    ) -> None:
        super().__init__(on_change)
        self._client = Client(socket, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._first = threading.Event()
        self._ending = threading.Event()
        self._guard = threading.Lock()
        self._stream: Stream[Observation] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Begin to watch, and wait for the first snapshot."""
        self._fork_guard.check()
        if self._thread is not None:
            raise RuntimeError("this cache was opened before")
        self._thread = threading.Thread(target=self._watch, name="netutil-watch", daemon=True)
        self._thread.start()
        if not self._first.wait(self._timeout_seconds):
            error = self._state.lost
            if error is None:  # it came after all
                return
            self.close()
            raise error

    def close(self) -> None:
        """End the connection. In a process forked from the one that opened it: nothing."""
        if os.getpid() != self._pid:
            return
        self._ending.set()
        with self._guard:
            if self._stream is not None:
                self._stream.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        try:
            self._watch_on()
        finally:  # after any end the facts are no longer kept fresh
            self._lose(closed())

    def _watch_on(self) -> None:
        reconnects = Reconnects()
        while not self._ending.is_set():
            try:
                with self._guard:
                    if self._ending.is_set():
                        return
                    self._stream = self._client.watch()
                for observation in self._stream:
                    reconnects.succeeded()
                    self._receive(observation)
                    self._first.set()
            except NetUtilError as error:
                self._lose(error)
            self._ending.wait(reconnects.pause_seconds())
