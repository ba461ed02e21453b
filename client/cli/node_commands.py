"""What the commands `netutil node …` do once their arguments are read."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from netutil.client.cli.exit_codes import Exit, exit_code_for
from netutil.client.cli.offline_checks import with_outside
from netutil.client.cli.output import complain, style, write
from netutil.client.cli.render import node as pod_tables
from netutil.client.cli.render import node_text, top
from netutil.client.cli.render.tables import Style, render
from netutil.client.documents import to_json, to_yaml
from netutil.client.errors import DeadlineExceeded, NetUtilError
from netutil.client.models.node import Diagnosis, Traced
from netutil.client.nodemap.dot import dot
from netutil.client.nodemap.html import html
from netutil.client.nodemap.layout import lay_out
from netutil.client.nodemap.model import gather_picture
from netutil.client.nodemap.svg import svg
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient

_ANSWER_SECONDS = 5.0
_MAP_SECONDS = 30.0
_LINES_BESIDE_ROWS = 4  # title, headers, notes, and the line of the cursor
_CLEAR = "\x1b[H\x1b[2J"

Command = Literal[
    "node pods",
    "node pod",
    "node map",
    "node top",
    "node trace",
    "node explain",
    "node doctor",
]


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The arguments of the command. None stands for what was not given."""

    command: Command
    output: str
    timeout_seconds: float | None
    admin_socket: str | None
    socket: str | None
    sort: str | None
    once: bool
    interval_seconds: float
    full_name: str | None
    process: int | None


def run_node(options: NodeOptions) -> Exit:
    """Ask what the options say, print the answer or the error."""
    run = {
        "node pods": _pods,
        "node pod": _pod,
        "node map": _map,
        "node top": _top,
        "node trace": _trace,
        "node explain": _explain,
        "node doctor": _doctor,
    }[options.command]

    async def connected() -> Exit:
        usual = _MAP_SECONDS if options.command == "node map" else _ANSWER_SECONDS
        seconds = options.timeout_seconds or usual
        if options.command in ("node top", "node trace"):  # there it is the whole time
            seconds = _ANSWER_SECONDS
        async with AsyncNodeClient(options.admin_socket, seconds) as client:
            return await run(client, options)

    try:
        return asyncio.run(connected())
    except NetUtilError as error:
        complain(error, options.output)
        return exit_code_for(error)


async def _pods(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    answer = await client.call(requests.node_pods())
    order = options.sort or "name"
    if options.output == "wide":  # whole, however narrow the terminal
        whole = Style(bold=style().bold)
        return write(render([pod_tables.pods_wide(answer, order)], whole))
    if options.output == "table":
        shown = style()
        table = pod_tables.pods(answer, order, datetime.now(UTC), shown.width)
        return write(render([table], shown))
    pods = tuple(pod_tables.ordered(answer, order))
    return write(_document({"pods": pods, "observed_at": answer.observed_at}, options))


async def _pod(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    namespace, _, name = (options.full_name or "").partition("/")
    answer = await client.call(requests.described_pod(namespace, name))
    if options.output == "table":
        tables = pod_tables.described_pod(answer, datetime.now(UTC))
        return write(render(tables, style()))
    return write(_document(answer, options))


async def _map(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    picture = await gather_picture(client, options.timeout_seconds or _MAP_SECONDS)
    if options.output == "dot":
        return write(dot(picture))
    scene = lay_out(picture)
    return write(html(scene) if options.output == "html" else svg(scene))


async def _explain(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    assert options.process is not None  # noqa: S101 - the parser demands it
    answer = await client.call(requests.explanation(options.process))
    text = node_text.explanation(answer, style())
    written = write(text if options.output == "text" else _document(answer, options))
    return written or (Exit.OK if answer.answered else Exit.FAILED)


async def _doctor(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    answer: Diagnosis | NetUtilError
    try:
        answer = await client.call(requests.diagnosis())
    except NetUtilError as error:
        answer = error
    found = with_outside(answer, options.socket)
    text = node_text.diagnosis(found, style())
    written = write(text if options.output == "text" else _document(found, options))
    failed = any(check.outcome == "failed" for check in found.checks)
    return written or (Exit.FAILED if failed else Exit.OK)


async def _top(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print one interval after the other until interrupted, or --timeout if given."""
    loop = asyncio.get_running_loop()
    ends = None
    if options.timeout_seconds is not None and not options.once:
        ends = loop.time() + options.timeout_seconds
    before = await client.call(requests.activity())
    while True:
        await asyncio.sleep(options.interval_seconds)
        now = await client.call(requests.activity())
        found = top.rates(before, now, options.sort or "calls")
        written = write(_screen(found, options))
        if written or options.once or (ends is not None and loop.time() >= ends):
            return written
        before = now


def _screen(found: top.Rates, options: NodeOptions) -> str:
    if options.output == "json":
        return to_json(found, indent=None)
    shown = style()
    if options.once or not sys.stdout.isatty():
        text = render([top.table(found, None, shown.width)], shown)
        return text + ("" if options.once else "\n")
    rows = max(1, shutil.get_terminal_size().lines - _LINES_BESIDE_ROWS)
    return _CLEAR + render([top.table(found, rows, shown.width)], shown)


async def _trace(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    show: Callable[[Traced], str] = _trace_json if options.output == "json" else _trace_lines
    begun = False
    try:
        async with aclosing(client.stream(requests.TRACE, options.timeout_seconds)) as told:
            async for traced in told:
                if not begun and options.output != "json":
                    print("netutil: tracing the calls of this node", file=sys.stderr, flush=True)
                begun = True
                if written := write(show(traced)):
                    return written
    except DeadlineExceeded:
        if not begun:
            raise
    return Exit.OK


def _trace_json(traced: Traced) -> str:
    lost = [{"lost": traced.lost}] if traced.lost else []
    return "".join(to_json(one, indent=None) for one in (*lost, *traced.calls))


def _trace_lines(traced: Traced) -> str:
    lost = [f"({traced.lost} calls not shown: this reader was too slow)"] if traced.lost else []
    return "".join(f"{line}\n" for line in (*lost, *map(node_text.traced, traced.calls)))


def _document(answer: Any, options: NodeOptions) -> str:
    return to_yaml(answer) if options.output == "yaml" else to_json(answer)
