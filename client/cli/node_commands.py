"""The commands `netutil node …`: call, print, exit code."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from netutil.client.cli import node_live, node_pods
from netutil.client.cli.exit_codes import Exit, exit_code_for
from netutil.client.cli.node_options import NodeOptions, render_document
from netutil.client.cli.offline_checks import with_outside
from netutil.client.cli.output import complain, style, write
from netutil.client.cli.render import host as host_tables
from netutil.client.cli.render import node as pod_tables
from netutil.client.cli.render import node_text
from netutil.client.cli.render.tables import render
from netutil.client.errors import InvalidArgument, NetUtilError
from netutil.client.models.node import Diagnosis
from netutil.client.nodemap.dot import MAX_DOT_PODS, dot
from netutil.client.nodemap.html import html
from netutil.client.nodemap.layout import lay_out
from netutil.client.nodemap.model import gather_picture
from netutil.client.nodemap.svg import svg
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient

_ANSWER_SECONDS = 5.0
_LONG_SECONDS = 30.0
"""Of a picture of the node, and of a list of processes."""


def run_node(options: NodeOptions) -> Exit:
    """Call the agent, print the answer or the error."""
    run = {
        "node pods": node_pods.pods,
        "node pod": _pod,
        "node describe": _describe,
        "node map": _map,
        "node top": node_live.top,
        "node trace": node_live.trace,
        "node explain": _explain,
        "node doctor": _doctor,
    }[options.command]

    async def connected() -> Exit:
        is_long = options.command == "node map" or options.view.processes
        usual = _LONG_SECONDS if is_long else _ANSWER_SECONDS
        seconds = options.timeout_seconds or usual
        if options.view.watch or options.command in ("node top", "node trace"):  # the whole time
            seconds = usual
        async with AsyncNodeClient(options.admin_socket, seconds) as client:
            return await run(client, options)

    try:
        return asyncio.run(connected())
    except NetUtilError as error:
        complain(error, options.output)
        return exit_code_for(error)


async def _pod(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    if options.view.processes:
        return await node_live.processes(client, options)
    namespace, _, name = (options.filters.full_name or "").partition("/")
    answer = await client.call(requests.described_pod(namespace, name))
    if options.output == "table":
        tables = pod_tables.described_pod(answer, datetime.now(UTC))
        return write(render(tables, style()))
    return write(render_document(answer, options))


async def _describe(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    answer = await client.call(requests.described_node(interfaces=True))
    node = host_tables.in_order(answer, options.view.sort or "index")
    if options.output != "table":
        return write(render_document(node, options))
    shown = style()
    return write(render(host_tables.described_node(node, shown.width), shown))


async def _map(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    picture = await gather_picture(client, options.timeout_seconds or _LONG_SECONDS)
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
    written = write(text if options.output == "text" else render_document(answer, options))
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
    written = write(text if options.output == "text" else render_document(found, options))
    failed = any(check.outcome == "failed" for check in found.checks)
    return written or (Exit.FAILED if failed else Exit.OK)
