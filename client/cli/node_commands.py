"""What the commands `netutil node …` do once their arguments are read."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from netutil.client.cli.exit_codes import Exit, exit_code_for
from netutil.client.cli.jsonpath import Template, parse
from netutil.client.cli.live import quit_key
from netutil.client.cli.offline_checks import with_outside
from netutil.client.cli.output import complain, say, style, write
from netutil.client.cli.render import node as pod_tables
from netutil.client.cli.render import node_text, top
from netutil.client.cli.render.tables import Style, render
from netutil.client.cli.selector import Matches
from netutil.client.documents import document, to_json, to_yaml
from netutil.client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NetUtilError,
)
from netutil.client.models.node import Diagnosis, NodePod, NodePods, Traced, TracedCall
from netutil.client.nodemap.dot import MAX_DOT_PODS, dot
from netutil.client.nodemap.html import html
from netutil.client.nodemap.layout import lay_out
from netutil.client.nodemap.model import gather_picture
from netutil.client.nodemap.svg import svg
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient
from netutil.client.text import escaped

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
class Filters:
    """Which pods or calls are shown; None stands for all."""

    namespace: str | None
    full_name: str | None
    selector: Matches | None
    method: str | None
    code: str | None
    errors_only: bool


@dataclass(frozen=True, slots=True)
class View:
    """How they are shown. `interval_seconds` is between two readings."""

    sort: str | None
    headers: bool
    once: bool
    watch: bool
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The arguments of the command. None stands for what was not given."""

    command: Command
    output: str
    timeout_seconds: float | None
    admin_socket: str | None
    subject: str | int | None
    """The pods' socket of `doctor`, the pid of `explain`."""
    view: View
    filters: Filters


def read_options(chosen: argparse.Namespace) -> NodeOptions:
    """The options from the arguments."""
    return NodeOptions(
        command=chosen.command,
        output=chosen.output,
        timeout_seconds=chosen.timeout_seconds,
        admin_socket=chosen.admin_socket,
        subject=chosen.process if chosen.process is not None else chosen.socket,
        view=View(
            sort=chosen.sort,
            headers=chosen.headers,
            once=chosen.once,
            watch=chosen.watch,
            interval_seconds=chosen.interval_seconds,
        ),
        filters=Filters(
            namespace=chosen.namespace,
            full_name=chosen.full_name,
            selector=chosen.selector,
            method=chosen.method,
            code=chosen.code,
            errors_only=chosen.errors_only,
        ),
    )


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
        if options.view.watch or options.command in ("node top", "node trace"):  # the whole time
            seconds = _ANSWER_SECONDS
        async with AsyncNodeClient(options.admin_socket, seconds) as client:
            return await run(client, options)

    try:
        return asyncio.run(connected())
    except NetUtilError as error:
        complain(error, options.output)
        return exit_code_for(error)


async def _pods(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print the pods; with --watch go on, and print each that is new or has changed."""
    template = _template(options)
    loop = asyncio.get_running_loop()
    ends = None
    if options.view.watch and options.timeout_seconds is not None:
        ends = loop.time() + options.timeout_seconds
    shown: dict[str, NodePod] = {}
    headers = options.view.headers
    while True:
        answer = _filtered(await client.call(requests.node_pods()), options.filters)
        changed = replace(answer, pods=tuple(p for p in answer.pods if shown.get(p.uid) != p))
        if changed.pods or not shown:
            written = write(_pods_text(changed, options, template, headers=headers))
            if written is not Exit.OK:
                return written
        if not options.view.watch:
            return Exit.OK
        shown, headers = {pod.uid: pod for pod in answer.pods}, False
        await asyncio.sleep(options.view.interval_seconds)
        if ends is not None and loop.time() >= ends:
            return Exit.OK


def _template(options: NodeOptions) -> Template | None:
    _, is_template, text = options.output.partition("jsonpath=")
    if not is_template:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidArgument(
            f"the JSONPath template is malformed: {error}",
            "INVALID_ARGUMENT",
            reason="TEMPLATE_MALFORMED",
            advice="netutil node pods -o json shows the fields; try '{.pods[*].name}'",
        ) from None


def _filtered(answer: NodePods, filters: Filters) -> NodePods:
    pods = (
        pod
        for pod in answer.pods
        if filters.namespace in (None, pod.namespace)
        and (filters.selector is None or filters.selector(pod.labels))
    )
    return replace(answer, pods=tuple(pods))


def _pods_text(
    answer: NodePods, options: NodeOptions, template: Template | None, *, headers: bool
) -> str:
    order = options.view.sort or "name"
    pods = tuple(pod_tables.ordered(answer, order))
    if template is not None:
        return template.render(document({"pods": pods, "observed_at": answer.observed_at}))
    if options.output == "name":
        return "".join(f"{escaped(pod.namespace)}/{escaped(pod.name)}\n" for pod in pods)
    if options.output in ("json", "yaml"):
        return _document({"pods": pods, "observed_at": answer.observed_at}, options)
    if options.output == "wide":  # whole, however narrow the terminal
        return render([pod_tables.pods_wide(answer, order)], Style(style().bold), headers=headers)
    shown = style()
    table = pod_tables.pods(answer, order, datetime.now(UTC), shown.width)
    return render([table], shown, headers=headers)


async def _pod(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    namespace, _, name = (options.filters.full_name or "").partition("/")
    answer = await client.call(requests.described_pod(namespace, name))
    if options.output == "table":
        tables = pod_tables.described_pod(answer, datetime.now(UTC))
        return write(render(tables, style()))
    return write(_document(answer, options))


async def _map(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    picture = await gather_picture(client, options.timeout_seconds or _MAP_SECONDS)
    if options.output == "dot":
        if len(picture.pods) > MAX_DOT_PODS:
            raise InvalidArgument(
                f"a graph of {len(picture.pods)} pods is not readable",
                "INVALID_ARGUMENT",
                reason="TOO_MANY_PODS_FOR_DOT",
                advice="use -o svg, or -o html with its filter",
            )
        return write(dot(picture))
    scene = lay_out(picture)
    return write(html(scene) if options.output == "html" else svg(scene))


async def _explain(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    assert isinstance(options.subject, int)  # noqa: S101 - the parser demands it
    answer = await client.call(requests.explanation(options.subject))
    text = node_text.explanation(answer, style())
    written = write(text if options.output == "text" else _document(answer, options))
    return written or (Exit.OK if answer.answered else Exit.FAILED)


async def _doctor(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    answer: Diagnosis | NetUtilError
    try:
        answer = await client.call(requests.diagnosis())
    except NetUtilError as error:
        answer = error
    socket = options.subject if isinstance(options.subject, str) else None
    found = with_outside(answer, socket)
    text = node_text.diagnosis(found, style())
    written = write(text if options.output == "text" else _document(found, options))
    failed = any(check.outcome == "failed" for check in found.checks)
    return written or (Exit.FAILED if failed else Exit.OK)


async def _top(client: AsyncNodeClient, options: NodeOptions) -> Exit:
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
            found = top.rates(before, now, options.view.sort or "calls")
            written = write(_screen(found, options))
            if written or options.view.once or (ends is not None and loop.time() >= ends):
                return written
            before = now


def _screen(found: top.Rates, options: NodeOptions) -> str:
    if options.output == "json":
        return to_json(found, indent=None)
    shown = style()
    if options.view.once or not sys.stdout.isatty():
        text = render([top.table(found, None, shown.width)], shown)
        return text + ("" if options.view.once else "\n")
    rows = max(1, shutil.get_terminal_size().lines - _LINES_BESIDE_ROWS)
    return _CLEAR + render([top.table(found, rows, shown.width)], shown)


async def _trace(client: AsyncNodeClient, options: NodeOptions) -> Exit:
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


def _document(answer: Any, options: NodeOptions) -> str:
    return to_yaml(answer) if options.output == "yaml" else to_json(answer)
