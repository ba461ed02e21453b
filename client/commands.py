"""What the command `netutil` does once its arguments are read: ask, print, exit code.

All questions of a command are asked at once over one connection, so the timeout
bounds the command. An answer is printed even if another question failed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netutil.client import questions
from netutil.client.asynchronous import AsyncClient, AsyncConnection, AsyncNodeClient
from netutil.client.devices import All
from netutil.client.documents import error_document, to_json, to_yaml
from netutil.client.dpdk import command_line
from netutil.client.dpdk_text import text_of
from netutil.client.errors import NetUtilError
from netutil.client.exits import Exit, exit_of
from netutil.client.questions import Question
from netutil.client.results import Environment
from netutil.client.tables import Style, harmless, render
from netutil.client.views import tables_of

Output = Literal["table", "json", "yaml", "args", "shell"]
_PAUSE_SECONDS = 0.25

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
    "whoami",
    "node pods",
]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of the command. None stands for what was not given."""

    command: Command
    output: Output
    timeout_seconds: float
    socket: str | None
    admin_socket: str | None
    pid: int | None
    key: str | None
    interface: str | None
    topology: bool
    explain: bool
    numa_mem: bool


def run(options: Options) -> Exit:
    """Ask what the options say, print the answers and the errors."""
    if options.command == "dpdk":
        return _run_dpdk(options)
    try:
        asked = _QUESTIONS[options.command](options)
    except NetUtilError as error:
        answers: dict[str, Any] = {options.command: error}
    else:
        answers = asyncio.run(_answers(asked, options))
    errors = [answer for answer in answers.values() if isinstance(answer, NetUtilError)]
    known = {
        name: answer for name, answer in answers.items() if not isinstance(answer, NetUtilError)
    }
    written = _write(_text(known, options)) if known else Exit.OK
    for complaint in dict.fromkeys(_complaint(error, options.output) for error in errors):
        print(complaint, file=sys.stderr, flush=True)
    return exit_of(errors[0]) if errors else written


def _run_dpdk(options: Options) -> Exit:
    """Print a whole command line or an error, never a part of it."""
    try:
        line = command_line(asyncio.run(_settled(options)), numa_mem=options.numa_mem)
        text = text_of(line, options.output, explain=options.explain)
    except NetUtilError as error:
        print(_complaint(error, options.output), file=sys.stderr, flush=True)
        return exit_of(error)
    if options.output != "json":  # whose document holds them
        for warning in line.warnings:
            print(f"netutil: warning: {harmless(warning)}", file=sys.stderr, flush=True)
    return _write(text)


async def _settled(options: Options) -> All:
    """All facts; asked for again while the kubelet has not yet reported a new container."""
    deadline = time.monotonic() + options.timeout_seconds
    async with _client(options) as client:
        while True:
            facts = await client.ask(questions.everything(options.pid))
            reported = facts.pod is None or facts.pod.container_name
            if reported or time.monotonic() + _PAUSE_SECONDS > deadline:
                return facts
            await asyncio.sleep(_PAUSE_SECONDS)


def _overview(options: Options) -> Mapping[str, Question[Any]]:
    pid = options.pid
    return {
        "cpu": questions.cpu(pid),
        "environment": questions.environment(pid),
        "network_status": questions.network_status(pid=pid),
    }


def _environment(options: Options) -> Mapping[str, Question[Any]]:
    if options.key is not None:
        return {"environment": questions.variable(options.key, options.pid)}
    return {"environment": questions.environment(options.pid)}


_QUESTIONS: Mapping[Command, Callable[[Options], Mapping[str, Question[Any]]]] = {
    "overview": _overview,
    "all": lambda given: {"all": questions.everything(given.pid)},
    "cpu": lambda given: {"cpu": questions.cpu(given.pid, topology=given.topology)},
    "devices": lambda given: {"resources": questions.resources(given.pid)},
    "env": _environment,
    "hugepages": lambda given: {"hugepages": questions.hugepages(given.pid)},
    "interfaces": lambda given: {"interfaces": questions.interfaces(given.interface, given.pid)},
    "network": lambda given: {
        "network_status": questions.network_status(given.interface, given.pid)
    },
    "whoami": lambda given: {"pod": questions.pod(given.pid)},
    "node pods": lambda _: {"pods": questions.node_pods()},
}
"""The questions of a command, under the names that a JSON object of all of them bears."""


def _client(options: Options) -> AsyncConnection:
    if options.command == "node pods":
        return AsyncNodeClient(options.admin_socket, options.timeout_seconds)
    return AsyncClient(options.socket, options.timeout_seconds)


async def _answers(asked: Mapping[str, Question[Any]], options: Options) -> dict[str, Any]:
    async with _client(options) as client:
        answers = await asyncio.gather(*(_answer(client, question) for question in asked.values()))
    return dict(zip(asked, answers, strict=True))


async def _answer(client: AsyncConnection, question: Question[Any]) -> Any:
    try:
        return await client.ask(question)
    except NetUtilError as error:
        return error


def _text(answers: Mapping[str, Any], options: Options) -> str:
    whole = answers if options.command == "overview" else next(iter(answers.values()))
    match options.output:
        case "json":
            return to_json(whole)
        case "yaml":
            return to_yaml(whole)
        case _:
            if options.key is not None and isinstance(whole, Environment):
                return _value(whole.envs[options.key])
            tables = [table for answer in answers.values() for table in tables_of(answer)]
            return render(tables, _style())


def _value(value: str) -> str:
    """A variable's value as printenv(1) prints it, exact unless a terminal would obey it."""
    return (harmless(value) if sys.stdout.isatty() else value) + "\n"


def _style() -> Style:
    if not sys.stdout.isatty():
        return Style()
    colourless = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return Style(bold=not colourless, width=shutil.get_terminal_size().columns)


def _complaint(error: NetUtilError, output: Output) -> str:
    if output == "json":
        return to_json(error_document(error), indent=None).rstrip("\n")
    lines = [f"netutil: {error.sentence}", *([error.advice] if error.advice else [])]
    return "\n".join(harmless(line.replace("\n", " ")) for line in lines)


def _write(text: str) -> Exit:
    """Write to the standard output. UTF-8 where no terminal says otherwise."""
    try:
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        else:
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return Exit.BROKEN_PIPE
    except OSError as error:
        _discard_output()
        print(f"netutil: cannot write the output: {error.strerror}", file=sys.stderr)
        return Exit.FAILED
    return Exit.OK


def _discard_output() -> None:
    """Let the interpreter's own flush at exit find a stream that takes everything."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
