"""Clients of one pod that mean well: each answer has to be about this pod. Runs in the pod.

`python witness.py NAME CLIENTS` asks until standard input ends, then prints one JSON object: calls,
the calls of the client that got the fewest, wrong answers, and refusals by reason.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter

from netutil.client import Cached, Client, NetUtilError

_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 30.0


class _Witness:
    def __init__(self, name: str, clients: int) -> None:
        self.name = name
        self.calls = [0] * clients
        self.wrong: list[str] = []
        self.refused: Counter[str] = Counter()
        self.slowest_seconds = 0.0
        self.stopping = threading.Event()

    def ask(self, number: int) -> None:
        with Client(timeout_seconds=_TIMEOUT_SECONDS) as client:
            while not self.stopping.wait(_PAUSE_SECONDS):
                try:
                    started = time.monotonic()
                    self._round(client)
                    took = time.monotonic() - started
                    self.slowest_seconds = max(self.slowest_seconds, took)
                    self.calls[number] += 6
                except NetUtilError as error:
                    self.refused[f"{error.code} {error.reason}"] += 1

    def _round(self, client: Client) -> None:
        pod = client.pod()
        self._is_mine("pod", pod.name)
        self._is_mine("environment", client.variable("WHO", pid=1))
        self._is_mine("label", pod.labels.get("who", ""))
        everything = client.all()
        if everything.pod is not None:
            self._is_mine("everything", everything.pod.name)
        for network in client.network_status().status:
            if set(network.ips) - set(pod.ips):
                self.wrong.append(f"{self.name} got addresses {network.ips}")
        client.interfaces()
        client.hugepages()

    def watch(self) -> None:
        with Cached(timeout_seconds=_TIMEOUT_SECONDS) as facts:
            while not self.stopping.wait(_PAUSE_SECONDS):
                self._is_mine("watch", facts.pod().name)

    def _is_mine(self, what: str, name: str) -> None:
        if name != self.name:
            self.wrong.append(f"{self.name} got {what} {name!r}")


def main() -> None:
    """Ask until standard input ends."""
    witness = _Witness(sys.argv[1], int(sys.argv[2]))

    threads = [
        threading.Thread(target=witness.ask, args=(number,), daemon=True)
        for number in range(len(witness.calls))
    ]
    threads.append(threading.Thread(target=witness.watch, daemon=True))
    threading.excepthook = lambda raised: witness.wrong.append(repr(raised.exc_value))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    witness.stopping.set()
    for thread in threads:
        thread.join(2 * _TIMEOUT_SECONDS)
    report = {
        "calls": sum(witness.calls),
        "fewest": min(witness.calls),
        "wrong": witness.wrong[:5],
        "refused": witness.refused,
        "slowest_seconds": round(witness.slowest_seconds, 2),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
