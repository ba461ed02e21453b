"""The options of `netutil node …`, as values."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Literal

from netutil.client.cli.selector import Matches
from netutil.client.documents import to_json, to_yaml

Command = Literal[
    "node pods",
    "node pod",
    "node describe",
    "node map",
    "node top",
    "node trace",
    "node explain",
    "node doctor",
]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which pods or calls are shown; None means all."""

    namespace: str | None
    full_name: str | None
    selector: Matches | None
    method: str | None
    code: str | None
    errors_only: bool


@dataclass(frozen=True, slots=True)
class View:
    """How pods, calls or processes are shown. `interval_seconds` is between two readings."""

    sort: str | None
    headers: bool
    once: bool
    watch: bool
    interval_seconds: float
    processes: bool
    threads: bool


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The arguments of the command. None means not given."""

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
            processes=chosen.processes or chosen.threads,
            threads=chosen.threads,
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


def render_document(answer: Any, options: NodeOptions) -> str:
    """The answer as YAML or JSON."""
    return to_yaml(answer) if options.output == "yaml" else to_json(answer)
