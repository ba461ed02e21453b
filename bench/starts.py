"""The time until the agent is ready, and the cost of its imports."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import answers, node
from bench.rows import Row, ratio
from tests.support.lab import Lab


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows."""
    times = 3 if quick else 9
    for key, what, ours, theirs in (
        ("agent", "the agent", "import netutil.agent.lifecycle", "import grpc.aio, grpc_status"),
        ("client", "the client", "import netutil.client", "import dataclasses, enum"),
    ):
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(times):
            for code, list_of in zip((ours, theirs), taken, strict=True):
                list_of.append(_cpu_of([sys.executable, "-c", code]))
        yield ratio(
            f"import.{key}",
            f"CPU to import {what} (`{ours}`)",
            f"`{theirs}`",
            *taken,
            note=f"{1000 * min(taken[0]):.0f} ms against {1000 * min(taken[1]):.0f} ms",
        )
    yield _cold_start(times)


def _cpu_of(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, env=os.environ | node.ENV, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cold_start(times: int) -> Row:
    agent: list[float] = []
    echo: list[float] = []
    with Lab() as lab:
        one = node.pod(lab, "upf")
        pods = lab.write_pod_list()
        kept = lab.directory / "answers.json"
        answers.write(kept, {"GetPod": b""})
        for number in range(times):
            for socket, command, list_of in (
                (
                    lab.socket.parent / f"net{number}.sock",
                    ["netutil.agent", "--admin-socket=", f"--pod-source=file:{pods}"],
                    agent,
                ),
                (lab.socket.parent / f"echo{number}.sock", ["bench.echo"], echo),
            ):
                argv = (
                    [*command, str(socket), str(kept)]
                    if list_of is echo
                    else [*command, f"--socket={socket}", "--metrics-address=", "--log-level=error"]
                )
                began = time.monotonic()
                with ExitStack() as stack:
                    stack.enter_context(node.server(socket, argv))
                    list_of.append(time.monotonic() - began)
        one.delete()
    return ratio(
        "start.cold",
        "cold start, from exec to the first answer at the socket",
        "the echo's",
        agent,
        echo,
        note=f"{min(agent):.2f} s against {min(echo):.2f} s",
    )
