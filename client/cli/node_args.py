"""The arguments of `netutil node …`. Loads nothing that asks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netutil.client.cli.args import OUTPUTS, pid, seconds, shared_options

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_POD_OUTPUTS = ("table", "wide", "json", "yaml")
_LIVE_OUTPUTS = ("table", "json")
_TRACE_OUTPUTS = ("lines", "json")
_TEXT_OUTPUTS = ("text", "json", "yaml")
_MAP_OUTPUTS = ("svg", "html", "dot")
_WAITS = "longest time to wait for the answer ({}); 500ms, 60s, 2m"
_ENDS = "end after so long; else it goes on until it is interrupted"
NODE_OUTPUTS = ("wide", "text", *_MAP_OUTPUTS)
"""Ways to print that only these commands have."""
POD_ORDERS = ("name", "calls", "refused", "connections", "last-refusal")
TOP_ORDERS = ("calls", "refused", "connections", "latency", "name")
NODE_DEFAULTS: dict[str, Any] = {
    "sort": None,
    "once": False,
    "interval_seconds": 2.0,
    "full_name": None,
    "process": None,
}
_OUTPUTS_OF = {
    "node pods": _POD_OUTPUTS,
    "node map": _MAP_OUTPUTS,
    "node top": _LIVE_OUTPUTS,
    "node trace": _TRACE_OUTPUTS,
    "node explain": _TEXT_OUTPUTS,
    "node doctor": _TEXT_OUTPUTS,
}
_DESCRIPTION = """\
For the node's operator: asks the agent's operator socket, as root on the node. That is
/run/netutil-admin/admin.sock, where neither --admin-socket nor NETUTIL_ADMIN_SOCKET says
otherwise. From elsewhere: kubectl exec -n netutil AGENT-POD -- netutil node ..., or the
kubectl plugin: kubectl netutil pod NAMESPACE/NAME, kubectl netutil node NODE top. No
command prints the environment of a pod."""
_PODS = """\
Every pod on the node, and what it asks of the agent. READY: containers that run, of those
that should. CPUS: those that any of its containers may use. CALLS and REFUSED: since the
agent's start. -o wide adds the UID, each container, the QoS class and the networks."""
_POD = """\
Everything the agent knows about one pod, and from where, as it is now: what its processes
are told, their host pids for `netutil node explain`, and what could not be had, with the
reason. No environment, and of annotations the names alone."""
_EXPLAIN = """\
Identify a process as if it had connected, step by step, and say where that stops and why.
PID is the number that the host sees: inside a container the same process has another one
(NSpid in /proc/PID/status). Exit 0 if it is answered, 1 if it is refused."""
_DOCTOR = """\
Look whether the agent has on this node what it needs, and how to mend what it has not. If
the agent does not answer, what can be looked at without it. Exit 1 if something failed;
a warning is no failure."""
_TOP = """\
Connections, calls and latencies of each pod that has any, since the last refresh. P99 is
the upper bound of the bucket in which it lies. OPEN: calls under way, Watch among them."""
_TRACE = """\
A line for each call as it is answered, until --timeout if given: what was asked and what
was told, never a value. Who reads too slowly is told how many calls were left out."""


_MAP = """\
Draw the node: CPUs by NUMA node and core, network devices, pods with their containers and
interfaces; who shares a CPU pool, a core or a physical function, and what crosses NUMA
nodes. One file that loads nothing: netutil node map -o html > map.html. The page filters
by name and shows on pointing at a thing who shares it; dot is for Graphviz."""


def outputs_for(command: str) -> Sequence[str]:
    """How a command can print, the default first."""
    return _OUTPUTS_OF.get(command, OUTPUTS)


def _full_name(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME")
    return text


def add_node(commands: Commands) -> None:
    """Add `node` and its commands."""
    node = commands.add_parser(
        "node",
        help="for the node's operator",
        description=_DESCRIPTION,
        parents=[
            shared_options(
                of_node=True,
                of_pod=False,
                outputs=_all_outputs(),
                timeout=_WAITS.format("5, map 30"),
            )
        ],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subcommands = node.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, description: str) -> argparse.ArgumentParser:
        command = f"node {name}"
        added = subcommands.add_parser(
            name,
            help=text,
            description=description,
            parents=[
                shared_options(
                    of_node=True,
                    of_pod=False,
                    outputs=outputs_for(command),
                    timeout=(
                        _ENDS
                        if name in ("top", "trace")
                        else _WAITS.format("30" if name == "map" else "5")
                    ),
                )
            ],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=command)
        return added

    pods = add("pods", "every pod on the node, and what it asks of the agent", _PODS)
    pods.add_argument("--sort", choices=POD_ORDERS, help="the order of the pods (name)")
    pod = add("pod", "everything the agent knows about one pod, and from where", _POD)
    pod.add_argument("full_name", type=_full_name, metavar="NAMESPACE/NAME", help="the pod")
    add("map", "a picture of the node: who shares what, and what crosses NUMA nodes", _MAP)
    top = add("top", "who asks how much now, and how fast it is answered", _TOP)
    top.add_argument("--sort", choices=TOP_ORDERS, help="the order of the pods (calls)")
    top.add_argument("--once", action="store_true", help="print one interval and end")
    top.add_argument(
        "--interval",
        dest="interval_seconds",
        type=seconds,
        default=NODE_DEFAULTS["interval_seconds"],
        metavar="SECONDS",
        help="time between two refreshes (2)",
    )
    add("trace", "who asks what and what they are told, as it happens", _TRACE)
    explain = add("explain", "why a process is answered, or refused, step by step", _EXPLAIN)
    explain.add_argument(
        "process", type=pid, metavar="PID", help="the process, as the host sees it"
    )
    doctor = add("doctor", "what the agent needs on this node, and what is missing", _DOCTOR)
    doctor.add_argument("--socket", metavar="PATH", help="the pods' socket on this node")


def _all_outputs() -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for each in (OUTPUTS, *_OUTPUTS_OF.values()) for one in each))
