"""`netutil node top` and `netutil node trace`: output that goes on until interrupted."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace

from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.keys import quit_key
from netutil.client.cli.node_options import Filters, NodeOptions
from netutil.client.cli.output import say, style, write
from netutil.client.cli.render import node_text
from netutil.client.cli.render.tables import render
from netutil.client.cli.render.top import Rates, rates, table
from netutil.client.documents import to_json
from netutil.client.errors import DeadlineExceeded
from netutil.client.models.node import Traced, TracedCall
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient

_LINES_BESIDE_ROWS = 4  # title, headers, notes, and the line of the cursor
_CLEAR = "\x1b[H\x1b[2J"


async def top(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print one interval after the other until q, an interrupt, or --timeout if given."""
    loop = asyncio.get_running_loop()
    ends = None
    if options.timeout_seconds is not None and not options.view.once:
        ends = loop.time() + options.timeout_seconds
    before = await client.call(requests.activity())
    with quit_key() as key:
        while True:
            if await key.wait(options.view.interval_seconds):
                return Exit.OK
            now = await client.call(requests.activity())
            found = rates(before, now, options.view.sort or "calls")
            written = write(_screen(found, options))
            if written or options.view.once or (ends is not None and loop.time() >= ends):
                return written
            before = now


def _screen(found: Rates, options: NodeOptions) -> str:
    if options.output == "json":
        return to_json(found, indent=None)
    shown = style()
    if options.view.once or not sys.stdout.isatty():
        text = render([table(found, None, shown.width)], shown)
        return text + ("" if options.view.once else "\n")
    rows = max(1, shutil.get_terminal_size().lines - _LINES_BESIDE_ROWS)
    return _CLEAR + render([table(found, rows, shown.width)], shown)


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
