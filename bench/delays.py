"""The delay from a change to its snapshot, and of watchers after a restart."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

from bench import node
from bench.rows import Row
from tests.support.fakes import kubelet as kubelet_server
from tests.support.lab import Lab, LabContainer

WATCHER = [sys.executable, "-S", str(Path(__file__).with_name("watcher.py"))]
_REFRESH_SECONDS = 10
_QUIET_SECONDS = 0.15


class Watchers:
    """One watcher in each container; `lines` are (number, line) in the order of their coming."""

    def __init__(self, containers: list[LabContainer]) -> None:
        self.lines: Queue[tuple[int, str]] = Queue()
        self.processes = [one.spawn(WATCHER, env=node.ENV, stderr=None) for one in containers]
        for number, process in enumerate(self.processes):
            threading.Thread(target=self._read, args=(number, process), daemon=True).start()

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.put((number, line.decode().strip()))

    def all_have_one(self) -> float:
        """Wait for a snapshot of each; return the monotonic time of the last."""
        waiting, last = set(range(len(self.processes))), 0.0
        while waiting:
            number, line = self.lines.get(timeout=120)
            if line != "lost" and number in waiting:
                waiting.discard(number)
                last = max(last, float(line))
        return last

    def next(self) -> float:
        """The time of the next snapshot."""
        return float(self.lines.get(timeout=30)[1])


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the delay of each kind of change, and how long watchers take to come back."""
    changes, watchers_back = (20, 20) if quick else (200, 250)
    with Lab() as lab:
        pod = lab.pod("web")
        app = pod.container("app", cpus="0-1")
        lab.agent("--pod-refresh=1")
        watchers = Watchers([app])
        watchers.all_have_one()
        # One that runs already, so that its start is not measured.
        enter = ["nsenter", "-t", str(app.pid), "-n", "ip", "-force", "-batch", "-"]
        tool = subprocess.Popen(enter, stdin=subprocess.PIPE)
        time.sleep(1)

        def ip(line: str) -> Callable[[], None]:
            def change() -> None:
                assert tool.stdin is not None
                tool.stdin.write(f"{line}\n".encode())
                tool.stdin.flush()

            return change

        def cpus(text: str) -> Callable[[], None]:
            files = [d / "cpuset.cpus" for d in app.cgroups if (d / "cpuset.cpus").exists()]

            def change() -> None:
                for file in files:
                    file.write_text(text)

            return change

        def annotate(value: str) -> Callable[[], None]:
            def change() -> None:
                pod.annotations["bench"] = value
                lab.write_pod_list()

            return change

        kinds = {
            "an address": (
                ip("address add 192.0.2.9/24 dev eth0"),
                ip("address del 192.0.2.9/24 dev eth0"),
            ),
            "a link down/up": (ip("link set eth0 down"), ip("link set eth0 up")),
            "a CPU set": (cpus("0"), cpus("0-1")),
            "an annotation (file source, refresh 1 s)": (annotate("a"), annotate("b")),
        }
        for name, pair in kinds.items():
            found = [_delay(watchers, pair[n % 2]) for n in range(changes)]
            yield Row(
                f"delay.{name.partition('(')[0].strip().replace(' ', '-')}",
                f"from the change of {name} to its snapshot, p50",
                "absolute",
                1000 * statistics.median(found),
                "ms",
                1000 * min(found),
                1000 * max(found),
                note=f"{changes} changes, p99 {1000 * _p99(found):.3g} ms; a watcher in Python",
            )
        tool.communicate()
    yield from _restart(watchers_back)


def _restart(number: int) -> Iterator[Row]:
    """An agent ends and another begins; both ask one kubelet."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, number)
        double = kubelet_server.KubeletDouble(kubelet_server.pods(*lab.pod_list()["items"]))
        kubelet = stack.enter_context(kubelet_server.serving(double))
        flags = (
            *(f"--kubelet-url={kubelet.url}", "--kubelet-token="),
            *(f"--pod-refresh={_REFRESH_SECONDS}", "--log-level=error"),
        )
        agent = lab.agent(*flags, pod_source="kubelet")
        watchers = Watchers(containers)
        watchers.all_have_one()
        agent.stop()
        asked = len(double.requests)
        lab.agent(*flags, pod_source="kubelet")
        listening = time.monotonic()
        back = watchers.all_have_one() - listening
        asked = len(double.requests) - asked
    yield Row(
        "restart.back",
        f"{number} watchers after a restart: the last is back",
        "absolute",
        back,
        "s",
        note="after the new agent listens; pauses are random",
    )
    yield Row(
        "restart.gets",
        f"GETs to the kubelet while {number} watchers come back",
        "absolute",
        asked,
        "",
        note=f"--pod-refresh={_REFRESH_SECONDS}",
    )


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def _delay(watchers: Watchers, change: Callable[[], None]) -> float:
    """From the change's beginning to its snapshot's coming; then quiet."""
    made = time.monotonic()
    change()
    came = watchers.next()
    time.sleep(_QUIET_SECONDS)
    while not watchers.lines.empty():  # a change that the kernel reports in several steps
        watchers.next()
    return came - made
