"""The commands about the calling pod: call, print, exit code.

All requests of a command are sent at once over one connection, so the timeout
bounds the command. An answer is printed even if another request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netutil.client.cli.exit_codes import Exit, exit_code_for
from netutil.client.cli.output import complain, complaint, say, style, write
from netutil.client.cli.render.pod import tables_for
from netutil.client.cli.render.tables import render
from netutil.client.cli.watch import WatchOptions, watch
from netutil.client.documents import to_json, to_yaml
from netutil.client.dpdk.eal import command_line
from netutil.client.dpdk.render import render_command_line
from netutil.client.dpdk.view import OwnView, read_own_view
from netutil.client.errors import NetUtilError
from netutil.client.models.core import Environment, PartError
from netutil.client.models.devices import All
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncClient, AsyncConnection
from netutil.client.rpc.requests import Request
from netutil.client.text import harmless

Output = Literal["table", "json", "yaml", "args", "shell", "export"]
_PAUSE_SECONDS = 0.25
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEVER_NAMED = ("CONTAINER_NOT_LISTED", "NOT_IN_A_CONTAINER")
"""Reasons for which a later pod list has no name for the container either."""
_ANSWER_SECONDS = 5.0
_WAIT_SECONDS = 60.0

Command = Literal[
    "overview",
    "all",
    "cpu",
    "devices",
    "dpdk",
    "env",
    "hugepages",
    "interfaces",
    "network",
    "watch",
    "whoami",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """The variable or interface of the command, and the interface to wait for."""

    key: str | None
    interface: str | None
    wait: str | None


@dataclass(frozen=True, slots=True)
class Detail:
    """What is printed in addition."""

    env: bool
    topology: bool
    explain: bool
    numa_mem: bool
    agent_device: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of the command. None means not given."""

    command: Command
    output: Output
    timeout_seconds: float | None
    socket: str | None
    pid: int | None
    subject: Subject
    detail: Detail

    @property
    def shows_environment(self) -> bool:
        """Whether the environment is printed beside other facts: JSON and YAML always are whole."""
        return self.detail.env or self.output != "table"


def read_options(chosen: argparse.Namespace) -> Options:
    """The options from the arguments."""
    return Options(
        command=chosen.command,
        output=chosen.output,
        timeout_seconds=chosen.timeout_seconds,
        socket=chosen.socket,
        pid=chosen.pid,
        subject=Subject(chosen.key, chosen.interface, chosen.wait),
        detail=Detail(
            chosen.env,
            chosen.topology,
            chosen.explain,
            chosen.numa_mem,
            chosen.agent_device,
        ),
    )


def run(options: Options) -> Exit:
    """Call the agent, print the answers and the errors."""
    if options.command == "dpdk":
        return _run_dpdk(options)
    if options.command == "watch":
        watched = WatchOptions(
            options.socket, options.output, options.timeout_seconds, options.detail.env
        )
        return asyncio.run(watch(watched))
    try:
        asked = _REQUESTS[options.command](options)
        answers: dict[str, Any] = asyncio.run(_answers(asked, options))
    except NetUtilError as error:
        answers = {options.command: error}
    errors = [answer for answer in answers.values() if isinstance(answer, NetUtilError)]
    known = {
        name: answer for name, answer in answers.items() if not isinstance(answer, NetUtilError)
    }
    written = write(_text(known, options)) if known else Exit.OK
    for text in dict.fromkeys(complaint(error, options.output) for error in errors):
        say(text)
    return exit_code_for(errors[0]) if errors else written


def _run_dpdk(options: Options) -> Exit:
    """Print a whole command line or an error, never a part of it."""
    try:
        view = _own_view(options)
        facts = asyncio.run(_settled(options))
        line = command_line(facts, numa_mem=options.detail.numa_mem, view=view)
        text = render_command_line(line, options.output, explain=options.detail.explain)
    except NetUtilError as error:
        complain(error, options.output)
        return exit_code_for(error)
    if options.output != "json":  # whose document holds them
        for warning in line.warnings:
            say(f"netutil: warning: {harmless(warning)}")
    return write(text)


def _own_view(options: Options) -> OwnView | None:
    """The view of this process; None with --pid, whose process may be in another container."""
    if options.pid is not None:
        return None
    try:
        return read_own_view()
    except OSError as error:
        raise NetUtilError(
            f"what this process sees of its container cannot be read: {error.strerror}",
            "FAILED_PRECONDITION",
            read=str(error.filename or "/proc"),
            advice="mount /proc in the container, or name a process with --pid",
        ) from None


async def _settled(options: Options) -> All:
    """All facts; called again while they are about to change.

    A new container is not listed yet, links keep changing, or a driver writes its device metadata.
    """
    deadline = time.monotonic() + _seconds(options)
    async with _client(options) as client:
        while True:
            facts = await client.call(requests.everything(options.pid))
            if _is_settled(facts) or time.monotonic() + _PAUSE_SECONDS > deadline:
                return facts
            await asyncio.sleep(_PAUSE_SECONDS)


def _is_settled(facts: All) -> bool:
    links = facts.interfaces.link_error if facts.interfaces else None
    if links is not None and links.reason == "NETWORK_NAMESPACE_CHANGING":
        return False
    if any(error.code == "UNAVAILABLE" for error in _claim_errors(facts)):
        return False
    if facts.pod is None or facts.pod.container_name:
        return True
    return any(one.reason in _NEVER_NAMED for one in facts.errors if one.part == "resources")


def _claim_errors(facts: All) -> Iterator[PartError]:
    """Yield why devices of resource claims are not known."""
    claims = facts.resources.claims if facts.resources else ()
    errors = [one.error for one in claims or ()]
    if facts.interfaces is not None:
        errors.append(facts.interfaces.claims_error)
    yield from (error for error in errors if error is not None)


def _overview(options: Options) -> Mapping[str, Request[Any]]:
    pid = options.pid
    environment = {"environment": requests.environment(pid)} if options.shows_environment else {}
    return {
        "cpu": requests.cpu(pid),
        **environment,
        "network_status": requests.network_status(pid=pid),
    }


def _environment(options: Options) -> Mapping[str, Request[Any]]:
    if options.subject.key is not None:
        return {"environment": requests.variable(options.subject.key, options.pid)}
    return {"environment": requests.environment(options.pid)}


def _networks(options: Options) -> Mapping[str, Request[Any]]:
    if options.subject.wait is None:
        return {"network_status": requests.network_status(options.subject.interface, options.pid)}
    # What was waited for may be live only: then there is none, and that is no error.
    return {"network_status": requests.networks_of(options.subject.wait)}


_REQUESTS: Mapping[Command, Callable[[Options], Mapping[str, Request[Any]]]] = {
    "overview": _overview,
    "all": lambda given: {"all": requests.everything(given.pid)},
    "cpu": lambda given: {"cpu": requests.cpu(given.pid, topology=given.detail.topology)},
    "devices": lambda given: {
        "resources": requests.resources(given.pid, agent_device=given.detail.agent_device)
    },
    "env": _environment,
    "hugepages": lambda given: {"hugepages": requests.hugepages(given.pid)},
    "interfaces": lambda given: {
        "interfaces": requests.interfaces(given.subject.wait or given.subject.interface, given.pid)
    },
    "network": _networks,
    "whoami": lambda given: {"pod": requests.pod(given.pid)},
}
"""The requests of a command, by their names in the JSON object of all of them."""


def _client(options: Options) -> AsyncConnection:
    return AsyncClient(options.socket, _seconds(options))


def _seconds(options: Options) -> float:
    """The timeout of a call. With `wait` the given timeout is that of the wait."""
    if options.timeout_seconds is None or options.subject.wait is not None:
        return _ANSWER_SECONDS
    return options.timeout_seconds


async def _answers(asked: Mapping[str, Request[Any]], options: Options) -> dict[str, Any]:
    if options.subject.wait is not None:
        async with AsyncClient(options.socket) as client:
            await client.wait_for_interface(
                options.subject.wait, options.timeout_seconds or _WAIT_SECONDS
            )
    async with _client(options) as connection:
        answers = await asyncio.gather(*(_answer(connection, one) for one in asked.values()))
    return dict(zip(asked, answers, strict=True))


async def _answer(client: AsyncConnection, request: Request[Any]) -> Any:
    try:
        return await client.call(request)
    except NetUtilError as error:
        return error


def _text(answers: Mapping[str, Any], options: Options) -> str:
    whole = answers if options.command == "overview" else next(iter(answers.values()))
    match options.output:
        case "json":
            return to_json(whole)
        case "yaml":
            return to_yaml(whole)
        case "export":
            assert isinstance(whole, Environment)  # noqa: S101 - of the command env alone
            return _exports(whole.envs)
        case _:
            if options.subject.key is not None and isinstance(whole, Environment):
                return _value(whole.envs[options.subject.key])
            tables = [
                table
                for answer in answers.values()
                for table in tables_for(answer, environment=options.shows_environment)
            ]
            return render(tables, style())


def _exports(variables: Mapping[str, str]) -> str:
    """Commands for `eval` in a POSIX shell; a name that no shell takes is left out and reported."""
    usable = {name: value for name, value in variables.items() if _SHELL_NAME.fullmatch(name)}
    if left_out := len(variables) - len(usable):
        say(f"netutil: warning: variables with names that a shell does not take: {left_out}")
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in usable.items())
    return harmless(text) if sys.stdout.isatty() else text


def _value(value: str) -> str:
    """A variable's value as printenv(1) prints it, exact except on a terminal."""
    return (harmless(value) if sys.stdout.isatty() else value) + "\n"
