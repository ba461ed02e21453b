"""The arguments of `netutil node …`. Loads nothing that calls the agent."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from netutil.client.cli.args import (
    JSONPATH,
    OUTPUTS,
    TIMEOUT,
    WATCHES,
    Outputs,
    pid,
    seconds,
    shared_options,
)
from netutil.client.cli.completion import complete_pods
from netutil.client.cli.selector import parse_selector

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Value = TypeVar("Value")
_POD_OUTPUTS = Outputs(("table", "wide", "name", "json", "yaml", JSONPATH))
_LIVE_OUTPUTS = Outputs(("table", "json"))
_TRACE_OUTPUTS = Outputs(("lines", "json"))
_TEXT_OUTPUTS = Outputs(("text", "json", "yaml"))
_MAP_OUTPUTS = Outputs(("svg", "html", "dot"))
NODE_OUTPUTS = ("wide", "name", JSONPATH, "text", *_MAP_OUTPUTS)
"""Ways to print that only these commands have."""
POD_ORDERS = ("name", "calls", "refused", "failed", "not-found", "connections", "last-error")
TOP_ORDERS = ("calls", "refused", "failed", "not-found", "connections", "latency", "name")
PROCESS_ORDERS = ("cpu", "memory", "threads", "name")
"""Orders of `node top --processes` and `node pod --processes`."""
INTERFACE_ORDERS = ("index", "traffic", "errors", "dropped", "name")
NODE_DEFAULTS: dict[str, Any] = {
    "sort": None,
    "once": False,
    "watch": False,
    "interval_seconds": 2.0,
    "full_name": None,
    "process": None,
    "namespace": None,
    "selector": None,
    "headers": True,
    "method": None,
    "code": None,
    "errors_only": False,
    "processes": False,
    "threads": False,
}
_OUTPUTS_BY_COMMAND = {
    "node pods": _POD_OUTPUTS,
    "node describe": OUTPUTS,
    "node map": _MAP_OUTPUTS,
    "node top": _LIVE_OUTPUTS,
    "node trace": _TRACE_OUTPUTS,
    "node explain": _TEXT_OUTPUTS,
    "node doctor": _TEXT_OUTPUTS,
}
_DESCRIPTION = """\
Commands for the operator of a node. The commands call the agent's Unix socket for operators, which
requires root on the node. The default is /run/netutil-admin/admin.sock; --admin-socket or
NETUTIL_ADMIN_SOCKET names another one. No command prints the environment of a pod.

From another machine:
  kubectl exec -n netutil AGENT-POD -- netutil node pods
  kubectl netutil node NODE pods          the kubectl plugin
  kubectl netutil pod NAMESPACE/NAME"""
_PODS = """\
List the pods of the node, and their calls to the agent. The columns:

  READY      containers that run, of all containers that should run
  CPUS       CPUs that at least one container of the pod may use
  CONNS      open connections
  CALLS      calls since the agent started; so are the next three columns
  REFUSED    calls that were denied, or over a limit
  FAILED     calls with any other error
  NOT FOUND  calls for a variable, an interface or a process that does not exist

-o wide adds the UID, each container, the QoS class and the networks. -o name prints
NAMESPACE/NAME. -o jsonpath='{.pods[*].name}' takes a template of kubectl, without filters."""
_POD = """\
Print all current facts about one pod, and the source of each fact. The output also has the host
PIDs of the pod's processes, for `netutil node explain`, and the reason for each missing part. The
output has no environment, and only the names of annotations.

With --processes, print the processes of the pod, as measured over --interval: the CPUs that each
process may use, the CPU that runs it, and whether such a CPU is exclusive to a container. The
output has neither arguments nor environments of processes."""
_DESCRIBE = """\
Print the facts about the node itself: the number of CPUs, cores, sockets and NUMA nodes, the
network devices, and the interfaces of the node's own network namespace. A counter starts when the
interface is created. MBIT/S is the speed that the driver of a hardware interface reports. A dash
means that the value is not known."""
_EXPLAIN = """\
Identify a process step by step, as the agent does after a connect, and print the step that fails
and the reason. PID is the PID on the host. The PID inside the container differs (NSpid in
/proc/PID/status). The exit status is 0 if the agent would answer, and 1 if it would refuse."""
_DOCTOR = """\
Check what the agent needs on this node, and print the fix for each failed check. If the agent does
not answer, only the checks that need no agent run. The exit status is 1 if a check failed; a
warning does not count as a failure."""
_TOP = """\
List the pods that have connections or calls, with rates and latencies since the last refresh.
OPEN is the number of calls in progress, with Watch. P99 is an upper bound: the limit of a histogram
bucket. On a terminal, q ends the command. With --processes, list the processes of all pods."""
_TRACE = """\
Print one line for each call when the agent answers it: caller, method, status and duration. No
line has a value of an answer. With several filters, only calls that match all filters are printed.
If this program reads too slowly, the agent leaves calls out, and a line says how many."""
_MAP = """\
Draw the node: CPUs by NUMA node and core, network devices, and pods with their containers and
interfaces. The picture shows which pods share a CPU pool, a core or a physical function (PF), and
what crosses NUMA nodes. Example: netutil node map -o html > map.html

The file loads nothing from the network. The HTML page filters by name, and shows at the pointer
which pods share a resource. The format dot is for Graphviz, and for at most 50 pods."""


def outputs_for(command: str) -> Outputs:
    """How a command can print, the default first."""
    return _OUTPUTS_BY_COMMAND.get(command, OUTPUTS)


def _full_name(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME")
    return text


def _parsed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """A type of an argument from a parser that raises ValueError with a sentence."""

    def convert(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def add_node(commands: Commands) -> None:
    """Add `node` and its commands."""
    outputs = Outputs(dict.fromkeys((*OUTPUTS, *NODE_OUTPUTS, *_TRACE_OUTPUTS)))
    node = commands.add_parser(
        "node",
        help="commands for the operator of the node, as root",
        description=_DESCRIPTION,
        parents=[
            shared_options(
                "admin-socket",
                outputs=outputs,
                timeout=TIMEOUT.format("5s; map 30s"),
                commands=True,
            )
        ],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subcommands = node.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, description: str, timeout: str = "") -> argparse.ArgumentParser:
        command = f"node {name}"
        sockets = ("admin-socket", "socket") if name == "doctor" else ("admin-socket",)
        added = subcommands.add_parser(
            name,
            help=text,
            description=description,
            parents=[
                shared_options(
                    *sockets,
                    outputs=outputs_for(command),
                    timeout=timeout or TIMEOUT.format("5s"),
                )
            ],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=command)
        return added

    _add_pods(add("pods", "all pods of the node, and their calls to the agent", _PODS))
    timeout = TIMEOUT.format("5s; with --processes 30s")
    pod = add("pod", "all facts about one pod, with their sources", _POD, timeout)
    name = pod.add_argument("full_name", type=_full_name, metavar="NAMESPACE/NAME", help="the pod")
    name.completer = complete_pods  # type: ignore[attr-defined]  # argcomplete's own attribute
    _add_processes(pod)
    pod.add_argument("--sort", choices=PROCESS_ORDERS, help="order of the processes (default: cpu)")
    _add_interval(pod)
    described = "the node itself: CPUs, network devices, interfaces and their counters"
    describe = add("describe", described, _DESCRIBE)
    describe.add_argument(
        "--sort", choices=INTERFACE_ORDERS, help="order of the interfaces (default: index)"
    )
    drawn = "a picture of the node: shared resources, and what crosses NUMA nodes"
    add("map", drawn, _MAP, TIMEOUT.format("30s"))
    top = add("top", "calls and latencies of each pod, live", _TOP, WATCHES)
    top.add_argument(
        "--sort",
        choices=tuple(dict.fromkeys((*TOP_ORDERS, *PROCESS_ORDERS))),
        help=f"order of the pods (default: calls); with --processes {', '.join(PROCESS_ORDERS)}"
        " (default: cpu)",
    )
    _add_processes(top)
    top.add_argument("--once", action="store_true", help="print one interval and end")
    _add_interval(top)
    _add_trace(add("trace", "one line for each call to the agent, live", _TRACE, WATCHES))
    explain = add("explain", "why the agent answers or refuses a process, step by step", _EXPLAIN)
    explain.add_argument("process", type=pid, metavar="PID", help="PID of the process on the host")
    add("doctor", "checks of what the agent needs on this node, with fixes", _DOCTOR)


def _add_pods(pods: argparse.ArgumentParser) -> None:
    _add_namespace(pods)
    pods.add_argument(
        "-l",
        "--selector",
        type=_parsed(parse_selector),
        metavar="SELECTOR",
        help="only pods with these labels: app=web,tier!=test, app in (a, b), gpu, !gpu",
    )
    pods.add_argument("--sort", choices=POD_ORDERS, help="order of the pods (default: name)")
    _add_no_headers(pods)
    pods.add_argument(
        *("-w", "--watch"),
        action="store_true",
        help="continue until interrupted, and print each new or changed pod",
    )
    _add_interval(pods)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", action="store_true", help="list processes")
    parser.add_argument(
        "--threads", action="store_true", help="list processes, and one line for each thread"
    )


def _add_trace(trace: argparse.ArgumentParser) -> None:
    _add_namespace(trace)
    pod = trace.add_argument(
        *("--pod",),
        dest="full_name",
        type=_full_name,
        metavar="NAMESPACE/NAME",
        help="only calls of this pod",
    )
    pod.completer = complete_pods  # type: ignore[attr-defined]  # argcomplete's own attribute
    trace.add_argument(
        "--method", metavar="METHOD", help="only calls of this method, as GetCPUInfo"
    )
    trace.add_argument("--code", metavar="CODE", help="only calls with this status, as NOT_FOUND")
    trace.add_argument(
        "--errors", dest="errors_only", action="store_true", help="only calls with an error"
    )
    _add_no_headers(trace)


def _add_namespace(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-n", "--namespace", metavar="NAMESPACE", help="only pods of this namespace")
    group.add_argument(
        *("-A", "--all-namespaces"),
        dest="namespace",
        action="store_const",
        const=None,
        help="pods of all namespaces (the default)",
    )


def _add_no_headers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-headers",
        dest="headers",
        action="store_false",
        default=NODE_DEFAULTS["headers"],
        help="print only rows: no title, headers or notes",
    )


def _add_interval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        dest="interval_seconds",
        type=seconds,
        default=NODE_DEFAULTS["interval_seconds"],
        metavar="SECONDS",
        help="time between two refreshes (default: 2s)",
    )
