"""`netutil node pods`: every pod of the node, filtered, in several formats, and watched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.jsonpath import Template, parse
from netutil.client.cli.node_options import Filters, NodeOptions, render_document
from netutil.client.cli.output import style, write
from netutil.client.cli.render import node as pod_tables
from netutil.client.cli.render.tables import Style, render
from netutil.client.documents import document
from netutil.client.errors import InvalidArgument
from netutil.client.models.node import NodePod, NodePods
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient
from netutil.client.text import escaped


async def pods(client: AsyncNodeClient, options: NodeOptions) -> Exit:
    """Print the pods; with --watch go on, and print each pod that is new or has changed."""
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
        return render_document({"pods": pods, "observed_at": answer.observed_at}, options)
    if options.output == "wide":  # whole, however narrow the terminal
        return render([pod_tables.pods_wide(answer, order)], Style(style().bold), headers=headers)
    shown = style()
    table = pod_tables.pods(answer, order, datetime.now(UTC), shown.width)
    return render([table], shown, headers=headers)
