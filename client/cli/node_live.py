"""Output of `netutil node` that takes two readings, or goes on until interrupted."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.keys import quit_key
from netutil.client.cli.node_options import Filters, NodeOptions, render_document
from netutil.client.cli.output import say, style, write
from netutil.client.cli.render import node_text
from netutil.client.cli.render import processes as process_tables
from netutil.client.cli.render.tables import Table, render
from netutil.client.cli.render.top import rates, table
from netutil.client.documents import to_json
from netutil.client.errors import DeadlineExceeded
from netutil.client.models.node import Activity, Traced, TracedCall
from netutil.client.models.processes import ProcessReading
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient

Reading = TypeVar("Reading")
_LINES_BESIDE_ROWS = 5  # title, headers, two notes, and the line of the cursor
_CLEAR = "\x1b[H\x1b[2J"


async def top(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print one interval after the other until q, an interrupt, or --timeout if given."""
    if options.view.processes:
        return await _refresh(
            lambda: client.processes(threads=options.view.threads),
            lambda before, now: _processes_text(before, now, options),
            options,
        )
    order = options.view.sort or "calls"

    def text(before: Activity, now: Activity) -> str:
        found = rates(before, now, order)
        return _screen(found, lambda rows, width: table(found, rows, width), options)

    return await _refresh(lambda: client.call(requests.activity()), text, options)


async def _refresh(
    read: Callable[[], Awaitable[Reading]],
    text: Callable[[Reading, Reading], str],
    options: NodeOptions,
) -> Exit:
    """Print what `text` makes of two readings, one interval after the other."""
    loop = asyncio.get_running_loop()
    ends = None
    if options.timeout_seconds is not None and not options.view.once:
        ends = loop.time() + options.timeout_seconds
    before = await read()
    with quit_key() as key:
        while True:
            if await key.wait(options.view.interval_seconds):
                return Exit.OK
            now = await read()
            written = write(text(before, now))
            if written or options.view.once or (ends is not None and loop.time() >= ends):
                return written
            before = now


async def processes(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print the processes of one pod over one interval."""
    namespace, _, name = (options.filters.full_name or "").partition("/")
    before = await client.processes(namespace, name, threads=options.view.threads)
    await asyncio.sleep(options.view.interval_seconds)
    now = await client.processes(namespace, name, threads=options.view.threads)
    found = process_tables.processes(before, now, options.view.sort or "cpu")
    if options.output != "table":
        return write(render_document(found, options))
    shown = style()
    shape = process_tables.table(found, datetime.now(UTC), None, shown.width, pods=False)
    return write(render([shape], shown))


def _processes_text(before: ProcessReading, now: ProcessReading, options: NodeOptions) -> str:
    found = process_tables.processes(before, now, options.view.sort or "cpu")

    def shape(rows: int | None, width: int | None) -> Table:
        return process_tables.table(found, datetime.now(UTC), rows, width, pods=True)

    return _screen(found, shape, options)


def _screen(
    found: object, shape: Callable[[int | None, int | None], Table], options: NodeOptions
) -> str:
    """What is found as JSON, or as a table of as many rows as a terminal has."""
    if options.output == "json":
        return to_json(found, indent=None)
    shown = style()
    if options.view.once or not sys.stdout.isatty():
        text = render([shape(None, shown.width)], shown)
        return text + ("" if options.view.once else "\n")
    rows = max(1, shutil.get_terminal_size().lines - _LINES_BESIDE_ROWS)
    return _CLEAR + render([shape(rows, shown.width)], shown)


async def trace(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print each call that matches the filters until an interrupt, or --timeout if given."""
    is_json = options.output == "json"
    show: Callable[[Traced], str] = _trace_json if is_json else _trace_lines
    begun = False
    try:
        async with client.stream(requests.TRACE, options.timeout_seconds) as stream:
            async for traced in stream:
                if not begun and not is_json:
                    say("netutil: tracing the calls of this node")
                    if options.view.headers and (written := write(node_text.TRACE_HEADER)):
                        return written
                begun = True
                calls = tuple(one for one in traced.calls if _is_shown(one, options.filters))
                if written := write(show(replace(traced, calls=calls))):
                    return written
    except DeadlineExceeded:
        if not begun:
            raise
    return Exit.OK


def _is_shown(call: TracedCall, filters: Filters) -> bool:
    return (
        filters.namespace in (None, call.namespace)
        and filters.full_name in (None, f"{call.namespace}/{call.pod}")
        and filters.method in (None, call.method)
        and filters.code in (None, call.code)
        and not (filters.errors_only and call.code == "OK")
    )


def _trace_json(traced: Traced) -> str:
    lost = [{"lost": traced.lost}] if traced.lost else []
    return "".join(to_json(one, indent=None) for one in (*lost, *traced.calls))


def _trace_lines(traced: Traced) -> str:
    lost = [f"({traced.lost} calls not shown: this reader was too slow)"] if traced.lost else []
    return "".join(f"{line}\n" for line in (*lost, *map(node_text.traced, traced.calls)))
