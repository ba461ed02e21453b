"""The command `netutil`: parses the arguments, then loads the modules of the command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from netutil.client.cli.args import OUTPUTS, TIMEOUT, WATCHES, Outputs, Parser, awaited
from netutil.client.cli.args import shared_options as shared
from netutil.client.cli.completion import COMPLETION, SHELLS, answer_shell, shell_code
from netutil.client.cli.exit_codes import EXPLANATION, Exit
from netutil.client.cli.node_args import (
    NODE_DEFAULTS,
    NODE_OUTPUTS,
    PROCESS_ORDERS,
    TOP_ORDERS,
    add_node,
    outputs_for,
)
from netutil.client.cli.output import write

_DESCRIPTION = """\
Ask the netutil agent of this node about the calling process and its pod. Run this program in a
container of a pod that mounts the agent's socket. Without a command, it prints the CPUs and the
networks; with --env, also the environment."""
_EPILOG = (
    """\
-o json and -o yaml print one object for each answer, with the field names of netutil.proto.
Without a command, the object has the keys "cpu", "environment" and "network_status".
Options may precede or follow the command.

examples:
  netutil whoami                                       namespace, name and UID of the pod
  netutil cpu -o json
  netutil env HOME                                     the value of one variable
  netutil network --wait INTERFACE=net1 --timeout 60s  for an init container
  netutil node doctor                                  on the node, as root

environment:
  NETUTIL_SOCKET        the agent's Unix socket (default: /etc/netutil/net.sock)
  NETUTIL_ADMIN_SOCKET  the agent's Unix socket for operators, for "netutil node"
                        (default: /run/netutil-admin/admin.sock)
  NO_COLOR              if set: no bold text on a terminal

"""
    + EXPLANATION
)
_DEFAULTS: dict[str, Any] = {
    "command": "overview",
    "output": None,
    "timeout_seconds": None,
    "socket": None,
    "admin_socket": None,
    "pid": None,
    "key": None,
    "interface": None,
    "wait": None,
    "env": False,
    "topology": False,
    "explain": False,
    "numa_mem": False,
    "agent_device": False,
}
_ENV_OUTPUTS = Outputs((*OUTPUTS, "export"))
_WATCH_OUTPUTS = Outputs(("lines", "json"))
_DPDK_OUTPUTS = Outputs(("args", "shell", "json"))
_ALL_OUTPUTS = Outputs(
    dict.fromkeys((*OUTPUTS, *NODE_OUTPUTS, *_ENV_OUTPUTS, *_WATCH_OUTPUTS, *_DPDK_OUTPUTS))
)
_EXTRA = ("argcomplete", "yaml")
"""Packages of the extra `cli`, which a program that uses the library alone does not install."""
_SHOWS_ENVIRONMENT = ("overview", "all", "watch")


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="netutil",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[
            shared(
                *("socket", "pid"), hidden=("admin-socket",), outputs=_ALL_OUTPUTS, commands=True
            )
        ],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_env(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str, text: str, parent: argparse.ArgumentParser | None = None
    ) -> argparse.ArgumentParser:
        parents = [parent or shared("socket", "pid")]
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"Print {text}.", parents=parents, allow_abbrev=False
        )
        command.set_defaults(command=name)
        return command

    cpu = add("cpu", "CPU set, limits and exclusive CPUs of the container")
    cpu.add_argument(
        "--topology",
        action="store_true",
        help="also list each CPU: core, socket, NUMA node, whether it is exclusive",
    )
    env = add(
        "env",
        "the environment of the process, or the value of one variable",
        shared("socket", "pid", outputs=_ENV_OUTPUTS),
    )
    env.add_argument("key", nargs="?", metavar="KEY", help="print only the value of this variable")
    network = add(
        "network",
        "the pod's networks: the network-status annotation, else the pod's IPs",
        _waiting(),
    )
    network.add_argument(
        "interface", nargs="?", metavar="INTERFACE", help="print only this interface"
    )
    watch = add(
        "watch",
        "one line for each change of the facts about the pod",
        shared("socket", outputs=_WATCH_OUTPUTS, timeout=WATCHES),
    )
    _add_env(watch, "-o json always prints it")
    add("whoami", "the pod and container of the calling process")
    interfaces = add(
        "interfaces",
        "the pod's interfaces: as reported, live in the kernel, and their devices",
        _waiting(),
    )
    interfaces.add_argument(
        "interface", nargs="?", metavar="INTERFACE", help="print only this interface"
    )
    for waiting in (network, interfaces):
        waiting.add_argument(
            "--wait",
            type=awaited,
            metavar="INTERFACE=NAME",
            help="first wait, at most --timeout, until the network-status annotation or the kernel"
            " has this interface",
        )
    devices = add("devices", "devices, exclusive CPUs, memory and resource claims of the container")
    devices.add_argument(
        "--agent-device",
        action="store_true",
        help="also list the resource of the agent's own device plugin",
    )
    add("hugepages", "huge pages of the pod, the container and the node")
    _add_env(add("all", "all facts in one answer; a missing part is listed with the reason"))
    dpdk = add(
        "dpdk",
        "arguments of a DPDK program (EAL) that fit this container",
        shared("socket", "pid", outputs=_DPDK_OUTPUTS),
    )
    dpdk.add_argument(
        "--explain", action="store_true", help="print one line for each argument, with its source"
    )
    dpdk.add_argument(
        "--numa-mem",
        action="store_true",
        help="print --numa-mem, which DPDK 25.07 and later has for --socket-mem",
    )
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description=COMPLETION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS)
    add_node(commands)
    return parser


def _waiting() -> argparse.ArgumentParser:
    return shared("socket", "pid", timeout=TIMEOUT.format("5s; with --wait 60s"))


def _add_env(
    parser: argparse.ArgumentParser, always: str = "-o json and -o yaml always print it"
) -> None:
    """Add --env; `always` says which formats have the environment without it."""
    parser.add_argument(
        "--env",
        action="store_true",
        default=argparse.SUPPRESS,
        help=f"also print the environment, which may have secrets; {always}",
    )


def _check(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """End with an error for options that do not go together; choose how to print."""
    if chosen.command.startswith("node "):
        if chosen.pid is not None:
            parser.error(f"--pid is not for {chosen.command}")
        if chosen.socket is not None and chosen.command != "node doctor":
            parser.error(f"--socket is not for {chosen.command}")
        _check_order(parser, chosen)
    elif chosen.admin_socket is not None:
        parser.error("--admin-socket is for node commands only")
    if chosen.env and chosen.command not in _SHOWS_ENVIRONMENT:
        parser.error(f"--env is not for {chosen.command}")
    if chosen.pid is not None and (chosen.wait is not None or chosen.command == "watch"):
        parser.error("--pid is not for watch, nor for --wait: they are about the calling process")
    if chosen.wait is not None and chosen.interface not in (None, chosen.wait):
        parser.error(f"--wait INTERFACE={chosen.wait} and {chosen.interface} are two interfaces")
    outputs = {"dpdk": _DPDK_OUTPUTS, "watch": _WATCH_OUTPUTS, "env": _ENV_OUTPUTS}.get(
        chosen.command, outputs_for(chosen.command)
    )
    chosen.output = chosen.output or outputs[0]
    if chosen.output not in outputs:
        parser.error(f"{chosen.command} has no -o {chosen.output}: {', '.join(outputs)}")


def _check_order(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """End with an error for an order that what is shown does not have."""
    if chosen.sort is None or chosen.command not in ("node top", "node pod"):
        return
    of_processes = chosen.processes or chosen.threads
    if of_processes and chosen.sort not in PROCESS_ORDERS:
        parser.error(f"--sort {chosen.sort} is not for processes: {', '.join(PROCESS_ORDERS)}")
    if not of_processes and (chosen.command == "node pod" or chosen.sort not in TOP_ORDERS):
        parser.error(f"--sort {chosen.sort} is for --processes and --threads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code that `netutil --help` explains."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        what = f"the Python package {missing[0]} is missing: install kube-netutil[cli]"
        print(f"netutil: {what}", file=sys.stderr)
        return Exit.FAILED
    parser = _parser()
    answer_shell(parser)
    chosen = parser.parse_args(arguments, argparse.Namespace(**_DEFAULTS, **NODE_DEFAULTS))
    if "shell" in chosen:
        return write(shell_code(chosen.shell))
    _check(parser, chosen)
    if sys.stdout is None or sys.stderr is None:
        return Exit.FAILED
    # gRPC's own log would mix with the lines of this command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if chosen.command.startswith("node "):
            from netutil.client.cli.node_commands import run_node  # noqa: PLC0415  loads gRPC
            from netutil.client.cli.node_options import read_options  # noqa: PLC0415

            return run_node(read_options(chosen))
        from netutil.client.cli import commands  # noqa: PLC0415  loads gRPC

        return commands.run(commands.read_options(chosen))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
