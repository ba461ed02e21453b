"""The command `netutil`: reads the arguments, then loads what answers them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from netutil.client.cli.args import OUTPUTS, awaited, shared_options
from netutil.client.cli.completion import COMPLETION, SHELLS, answer_shell, shell_code
from netutil.client.cli.exit_codes import EXPLANATION, Exit
from netutil.client.cli.node_args import NODE_DEFAULTS, NODE_OUTPUTS, add_node, outputs_for

_DESCRIPTION = """\
Ask the netutil agent of this node about the calling process and its pod. Without
a command: CPUs, environment and networks."""
_EPILOG = (
    """\
-o json and -o yaml print the field names of the API (netutil.proto), an object per
answer; without a command an object of "cpu", "environment" and "network_status".
Options stand before or after the command.

environment:
  NETUTIL_SOCKET        the agent's socket (default /etc/netutil/net.sock)
  NETUTIL_ADMIN_SOCKET  its operator socket (default /run/netutil-admin/admin.sock)
  NO_COLOR              no bold text on a terminal

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
    "topology": False,
    "explain": False,
    "numa_mem": False,
}
_WATCH_OUTPUTS = ("lines", "json")
_DPDK_OUTPUTS = ("args", "shell", "json")
_ALL_OUTPUTS = (*OUTPUTS, *NODE_OUTPUTS, "args", "shell", "lines")


def _parser() -> argparse.ArgumentParser:
    of_pod = [shared_options(of_node=False, of_pod=True)]
    parser = argparse.ArgumentParser(
        prog="netutil",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[shared_options(of_node=True, of_pod=True, outputs=_ALL_OUTPUTS)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str, text: str, parents: list[argparse.ArgumentParser] = of_pod
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, parents=parents, allow_abbrev=False
        )
        command.set_defaults(command=name)
        return command

    cpu = add("cpu", "the CPUs of the container")
    cpu.add_argument(
        "--topology", action="store_true", help="each CPU: core, socket, NUMA node, exclusive"
    )
    env = add("env", "the environment, or the value of one variable")
    env.add_argument("key", nargs="?", metavar="KEY", help="print this variable's value alone")
    network = add("network", "the pod's networks, or one of them")
    network.add_argument("interface", nargs="?", metavar="INTERFACE", help="this interface alone")
    add(
        "watch",
        "a line for each change of what the agent says of this pod, until --timeout if given",
        [shared_options(of_node=False, of_pod=True, outputs=_WATCH_OUTPUTS)],
    )
    add("whoami", "the pod and container of the calling process")
    interfaces = add("interfaces", "the pod's interfaces as they are now, with their devices")
    interfaces.add_argument(
        "interface", nargs="?", metavar="INTERFACE", help="this interface alone"
    )
    for waiting in (network, interfaces):
        waiting.add_argument(
            "--wait",
            type=awaited,
            metavar="INTERFACE=NAME",
            help="wait until that interface is reported or live, 60 s or --timeout",
        )
    add("devices", "devices, exclusive CPUs and memory that the kubelet gave to the container")
    add("hugepages", "huge pages of the pod, the container and the node")
    add("all", "everything in one answer; what could not be had is listed with its reason")
    dpdk = add(
        "dpdk",
        "EAL arguments of a DPDK program for this container",
        [shared_options(of_node=False, of_pod=True, outputs=_DPDK_OUTPUTS)],
    )
    dpdk.add_argument(
        "--explain", action="store_true", help="a line for each argument, with its source"
    )
    dpdk.add_argument(
        "--numa-mem", action="store_true", help="--numa-mem for --socket-mem (DPDK 25.07)"
    )
    completion = commands.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description=COMPLETION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS)
    add_node(commands)
    return parser


def _of(given: dict[str, Any], options: type[Any]) -> dict[str, Any]:
    return {name: given[name] for name in options.__annotations__}


def _check(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """End with an error for options that do not go together; choose how to print."""
    if chosen.command.startswith("node "):
        if chosen.pid is not None:
            parser.error(f"--pid is not for {chosen.command}")
        if chosen.socket is not None and chosen.command != "node doctor":
            parser.error(f"--socket is not for {chosen.command}")
    elif chosen.admin_socket is not None:
        parser.error("--admin-socket is for node commands only")
    if chosen.pid is not None and (chosen.wait is not None or chosen.command == "watch"):
        parser.error("--pid is not for watch, nor for --wait: they are about the calling process")
    if chosen.wait is not None and chosen.interface not in (None, chosen.wait):
        parser.error(f"--wait INTERFACE={chosen.wait} and {chosen.interface} are two interfaces")
    outputs = {"dpdk": _DPDK_OUTPUTS, "watch": _WATCH_OUTPUTS}.get(
        chosen.command, outputs_for(chosen.command)
    )
    chosen.output = chosen.output or outputs[0]
    if chosen.output not in outputs:
        parser.error(f"{chosen.command} has no -o {chosen.output}: {', '.join(outputs)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code that `netutil --help` explains."""
    parser = _parser()
    answer_shell(parser)
    chosen = parser.parse_args(arguments, argparse.Namespace(**_DEFAULTS, **NODE_DEFAULTS))
    if "shell" in chosen:
        print(shell_code(chosen.shell))
        return Exit.OK
    _check(parser, chosen)
    if sys.stdout is None or sys.stderr is None:
        return Exit.FAILED
    # gRPC's own log would stand between the lines of this command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        given = vars(chosen)
        if chosen.command.startswith("node "):
            from netutil.client.cli.node_commands import NodeOptions, run_node  # noqa: PLC0415  loads gRPC

            return run_node(NodeOptions(**_of(given, NodeOptions)))
        from netutil.client.cli.commands import Options, run  # noqa: PLC0415  loads gRPC

        return run(Options(**_of(given, Options)))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
