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
For the node's operator: calls the agent's operator socket, as root on the node. That is
/run/netutil-admin/admin.sock, where neither --admin-socket nor NETUTIL_ADMIN_SOCKET says
otherwise. From elsewhere: kubectl exec -n netutil AGENT-POD -- netutil node ..., or the
kubectl plugin: kubectl netutil pod NAMESPACE/NAME, kubectl netutil node NODE top. No
command prints the environment of a pod."""
_PODS = """\
Every pod on the node, and its calls to the agent. READY: containers that run, of those that
should. CPUS: those that any of its containers may use. CALLS and the columns after it count
since the agent's start. REFUSED: denied, or over a limit. FAILED: any other error. NOT FOUND:
no such variable, interface or process. -o wide adds the UID, each container, the QoS class and
the networks; -o name prints NAMESPACE/NAME; -o jsonpath='{.pods[*].name}' takes kubectl's
templates without filters."""
_POD = """\
Everything the agent knows about one pod, and from where, as it is now: the facts that its
processes get, their host pids for `netutil node explain`, and each part that is missing, with
the reason. No environment, and of annotations the names alone. With --processes its processes
instead, as they are over --interval: the CPUs that each may use and the one that it runs on,
and whether such a CPU is exclusive to a container. Never arguments or environment."""
_DESCRIBE = """\
The node itself: how many CPUs, cores, sockets and NUMA nodes it has, its network devices, and
the interfaces of its own network namespace with their counters since each was made. A dash is
not known. MBIT/S is what the driver of a hardware link reports."""
_EXPLAIN = """\
Identify a process as if it had connected, step by step, and print where that stops and why.
PID is the number that the host sees: inside a container the same process has another one
(NSpid in /proc/PID/status). Exit 0 if it is answered, 1 if it is refused."""
_DOCTOR = """\
Check what the agent needs on this node, and print how to fix what is missing. If the agent
does not answer, run the checks that need no agent. Exit 1 if a check failed; a warning is no
failure."""
_TOP = """\
Connections, calls and latencies of each pod that has any, since the last refresh. P99 is
the upper bound of the bucket in which it lies. OPEN: calls under way, Watch among them. On a
terminal, q ends it. With --processes the processes of all pods instead."""
_TRACE = """\
A line for each call as it is answered: caller, method, status and time, never a value. A
reader that is too slow gets the number of calls that were left out. With several filters a
line is printed for each call that matches all of them."""
_MAP = """\
Draw the node: CPUs by NUMA node and core, network devices, pods with their containers and
interfaces; who shares a CPU pool, a core or a physical function, and what crosses NUMA
nodes. One file that loads nothing: netutil node map -o html > map.html. The page filters
by name, and pointing at a thing shows who shares it. dot is for Graphviz, and for nodes of
at most 50 pods."""


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
        help="for the node's operator",
        description=_DESCRIPTION,
        parents=[
            shared_options(
                "admin-socket", outputs=outputs, timeout=TIMEOUT.format("5, map 30"), commands=True
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
                    timeout=timeout or TIMEOUT.format("5"),
                )
            ],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=command)
        return added

    _add_pods(add("pods", "every pod on the node, and its calls to the agent", _PODS))
    timeout = TIMEOUT.format("5; with --processes 30")
    pod = add("pod", "everything the agent knows about one pod, and from where", _POD, timeout)
    name = pod.add_argument("full_name", type=_full_name, metavar="NAMESPACE/NAME", help="the pod")
    name.completer = complete_pods  # type: ignore[attr-defined]  # argcomplete's own attribute
    _add_processes(pod)
    pod.add_argument("--sort", choices=PROCESS_ORDERS, help="the order of the processes (cpu)")
    _add_interval(pod)
    described = "the node itself: CPUs, network devices, interfaces and their counters"
    describe = add("describe", described, _DESCRIBE)
    describe.add_argument(
        "--sort", choices=INTERFACE_ORDERS, help="the order of the interfaces (index)"
    )
    drawn = "a picture of the node: who shares what, and what crosses NUMA nodes"
    add("map", drawn, _MAP, TIMEOUT.format("30"))
    top = add("top", "calls of each pod now, and how fast they are answered", _TOP, WATCHES)
    top.add_argument(
        "--sort",
        choices=tuple(dict.fromkeys((*TOP_ORDERS, *PROCESS_ORDERS))),
        help=f"the order of the pods (calls), or of processes (cpu): {', '.join(PROCESS_ORDERS)}",
    )
    _add_processes(top)
    top.add_argument("--once", action="store_true", help="print one interval and end")
    _add_interval(top)
    _add_trace(add("trace", "each call as it is answered", _TRACE, WATCHES))
    explain = add("explain", "why a process is answered, or refused, step by step", _EXPLAIN)
    explain.add_argument(
        "process", type=pid, metavar="PID", help="the process, as the host sees it"
    )
    add("doctor", "what the agent needs on this node, and what is missing", _DOCTOR)


def _add_pods(pods: argparse.ArgumentParser) -> None:
    _add_namespace(pods)
    pods.add_argument(
        "-l",
        "--selector",
        type=_parsed(parse_selector),
        metavar="SELECTOR",
        help="the pods with these labels: app=web,tier!=test, app in (a, b), gpu, !gpu",
    )
    pods.add_argument("--sort", choices=POD_ORDERS, help="the order of the pods (name)")
    _add_no_headers(pods)
    pods.add_argument(
        *("-w", "--watch"),
        action="store_true",
        help="go on, and print each pod that is new or has changed, until interrupted",
    )
    _add_interval(pods)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", action="store_true", help="processes instead")
    parser.add_argument(
        "--threads", action="store_true", help="processes, and a line for each of their threads"
    )


def _add_trace(trace: argparse.ArgumentParser) -> None:
    _add_namespace(trace)
    pod = trace.add_argument(
        *("--pod",),
        dest="full_name",
        type=_full_name,
        metavar="NAMESPACE/NAME",
        help="calls of this pod",
    )
    pod.completer = complete_pods  # type: ignore[attr-defined]  # argcomplete's own attribute
    trace.add_argument("--method", metavar="METHOD", help="calls of this method: GetCPUInfo")
    trace.add_argument("--code", metavar="CODE", help="calls with this status: NOT_FOUND")
    trace.add_argument(
        "--errors", dest="errors_only", action="store_true", help="calls with an error"
    )
    _add_no_headers(trace)


def _add_namespace(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-n", "--namespace", metavar="NAMESPACE", help="pods of this namespace")
    group.add_argument(
        *("-A", "--all-namespaces"),
        dest="namespace",
        action="store_const",
        const=None,
        help="pods of all namespaces, which is the default",
    )


def _add_no_headers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-headers",
        dest="headers",
        action="store_false",
        default=NODE_DEFAULTS["headers"],
        help="print rows alone: no title, headers or notes",
    )


def _add_interval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        dest="interval_seconds",
        type=seconds,
        default=NODE_DEFAULTS["interval_seconds"],
        metavar="SECONDS",
        help="time between two refreshes (2)",
    )
