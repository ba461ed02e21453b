"""The command `netutil`: reads the arguments, then loads what answers them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from netutil.client.exits import EXPLANATION, Exit

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
    "timeout_seconds": 5.0,
    "socket": None,
    "admin_socket": None,
    "pid": None,
    "key": None,
    "interface": None,
    "topology": False,
    "explain": False,
    "numa_mem": False,
}
_OUTPUTS = ("table", "json", "yaml")
_DPDK_OUTPUTS = ("args", "shell", "json")
_ALL_OUTPUTS = (*_OUTPUTS, "args", "shell")


class _Version(argparse.Action):
    """Prints the version; loads the package's metadata only then."""

    def __call__(
        self, parser: argparse.ArgumentParser, *_arguments: object, **_options: object
    ) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"netutil {version('netutil')}")
        parser.exit()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive decimal number")
    return int(text)


def _shared_options(
    *, of_node: bool, of_pod: bool, outputs: Sequence[str] = _OUTPUTS
) -> argparse.ArgumentParser:
    """Options that stand before or after a command: never a default that hides the other."""
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("-o", "--output", choices=outputs, help=f"how to print ({outputs[0]})")
    options.add_argument(
        "--timeout",
        dest="timeout_seconds",
        type=_seconds,
        metavar="SECONDS",
        help="longest time to wait for the answer (5)",
    )
    if of_pod:
        options.add_argument("--socket", metavar="PATH", help="the agent's socket")
        options.add_argument(
            "--pid", type=_pid, metavar="PID", help="another process of the pod, as seen from here"
        )
    if of_node:
        options.add_argument("--admin-socket", metavar="PATH", help="the agent's operator socket")
    options.add_argument("--version", action=_Version, nargs=0, help="print the version")
    return options


def _parser() -> argparse.ArgumentParser:
    of_pod = [_shared_options(of_node=False, of_pod=True)]
    of_node = [_shared_options(of_node=True, of_pod=False)]
    parser = argparse.ArgumentParser(
        prog="netutil",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[_shared_options(of_node=True, of_pod=True, outputs=_ALL_OUTPUTS)],
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
    add("whoami", "the pod and container of the calling process")
    interfaces = add("interfaces", "the pod's interfaces as they are now, with their devices")
    interfaces.add_argument(
        "interface", nargs="?", metavar="INTERFACE", help="this interface alone"
    )
    add("devices", "devices, exclusive CPUs and memory that the kubelet gave to the container")
    add("hugepages", "huge pages of the pod, the container and the node")
    add("all", "everything in one answer; what could not be had is listed with its reason")
    dpdk = add(
        "dpdk",
        "EAL arguments of a DPDK program for this container",
        [_shared_options(of_node=False, of_pod=True, outputs=_DPDK_OUTPUTS)],
    )
    dpdk.add_argument(
        "--explain", action="store_true", help="a line for each argument, with its source"
    )
    dpdk.add_argument(
        "--numa-mem", action="store_true", help="--numa-mem for --socket-mem (DPDK 25.07)"
    )
    text = "for the node's operator"
    node = commands.add_parser(
        "node", help=text, description=text, parents=of_node, allow_abbrev=False
    )
    of_operator = node.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "every pod on the node, and what it asks of the agent"
    pods = of_operator.add_parser(
        "pods", help=text, description=text, parents=of_node, allow_abbrev=False
    )
    pods.set_defaults(command="node pods")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code that `netutil --help` explains."""
    parser = _parser()
    chosen = parser.parse_args(arguments, argparse.Namespace(**_DEFAULTS))
    if chosen.command == "node pods":
        for option in ("pid", "socket"):
            if getattr(chosen, option) is not None:
                parser.error(f"--{option} is not for node pods")
    elif chosen.admin_socket is not None:
        parser.error("--admin-socket is for node pods only")
    outputs = _DPDK_OUTPUTS if chosen.command == "dpdk" else _OUTPUTS
    chosen.output = chosen.output or outputs[0]
    if chosen.output not in outputs:
        parser.error(f"{chosen.command} has no -o {chosen.output}: {', '.join(outputs)}")
    if sys.stdout is None or sys.stderr is None:
        return Exit.FAILED
    # gRPC's own log would stand between the lines of this command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from netutil.client.commands import Options, run  # noqa: PLC0415  loads gRPC

        return run(Options(**vars(chosen)))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
