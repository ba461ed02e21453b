#!/usr/bin/env python3
"""kubectl netutil: the operator's tool of a pod's or a node's agent, or of all, from anywhere.

A plugin of kubectl: an executable named `kubectl-netutil` in the PATH. The plugin finds the agent's
pod on the right node and runs `netutil node …` in it by `kubectl exec`. This file needs nothing but
Python and kubectl: it may be copied alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, NoReturn

_LABELS = "app.kubernetes.io/name=netutil,app.kubernetes.io/component=agent"
_CONTAINER = "agent"
_AGENT_NAMESPACE = "netutil"
_COUNTS = ("connections", "calls", "refused", "failed", "not_found")
_COLUMNS = {
    "node": "node",
    "agent": "agent",
    "pods": "pods",
    "connections": "conns",
    "calls": "calls",
    "refused": "refused",
    "failed": "failed",
    "not_found": "not found",
}
"""Titles of the table of nodes, by the names of the fields with `-o json`."""
_AT_ONCE = 8
"""Nodes that are called together: each is a `kubectl exec`."""
_NODE_SECONDS = 30
_FAILED = 1
_NO_KUBECTL = 127
_NAME = "kubectl-netutil"
_DESCRIPTION = """\
Run the operator's tool of netutil in the agent's pod of the right node."""
_EPILOG = """\
examples:
  kubectl netutil pod trading/feed-handler        everything the agent knows about a pod
  kubectl netutil -n trading pod feed-handler -o json
  kubectl netutil node worker-3 pods --sort calls
  kubectl netutil node worker-3 top
  kubectl netutil node worker-3 trace --timeout 60s
  kubectl netutil node worker-3 explain 4711      a pid as the node sees it
  kubectl netutil node worker-3 doctor
  kubectl netutil nodes                           a line for each node with an agent
  kubectl netutil nodes -o json

Words after the pod or the node are for `netutil node`; its --help lists them:
  kubectl netutil node worker-3 --help

You need the rights to get pods and to create pods/exec in the agent's namespace, and for
"pod" to get that pod. The exit code is that of `netutil`; 1 also if the agent's pod is not
found, or if "nodes" got no answer from an agent, 127 without kubectl."""
_POD = """\
Run `netutil node pod` for a pod, in the agent's pod of its node. With --help after the name,
the agent's pod prints the options."""
_NODE = """\
Run `netutil node` in the agent's pod of a node. With --help after the node, the agent's pod
prints the commands."""
_WORDS = "words for `netutil node`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the agent, and become the `kubectl exec` in it. Returns only if that fails."""
    options = _parser().parse_args(arguments)
    kubectl = [os.environ.get("KUBECTL", "kubectl"), *_passed_on(options)]
    try:
        if options.command == "nodes":
            return _print_nodes(kubectl, options)
        if options.command == "pod":
            node, words = _of_pod(kubectl, options)
        else:
            node, words = options.node, options.words
        agent = _agent(kubectl, options.agent_namespace, node)
    except FileNotFoundError:
        _say(f"{kubectl[0]} is not in the PATH")
        return _NO_KUBECTL
    except subprocess.CalledProcessError as error:
        _say(str(error.stderr).strip() or f"kubectl ended with {error.returncode}")
        return _FAILED
    except LookupError as error:
        _say(str(error.args[0]))
        return _FAILED
    terminal = ["-i", "-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    command = [*kubectl, "exec", "--namespace", options.agent_namespace, *terminal, agent]
    command += ["--container", _CONTAINER, "--", "netutil", "node", *words]
    return _become(command)


def _become(command: list[str]) -> NoReturn:
    """Let kubectl take this process over: its streams, signals and exit code are the command's."""
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl netutil",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of the plugin and of Python"
    )
    parser.add_argument("-n", "--namespace", help="namespace of a pod that is named without one")
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument("--kubeconfig", help="path of the kubeconfig")
    parser.add_argument(
        "--agent-namespace",
        default=_AGENT_NAMESPACE,
        help=f"namespace of the agents ({_AGENT_NAMESPACE})",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    pod = commands.add_parser("pod", help="about one pod", description=_POD)
    pod.add_argument("pod", metavar="[NAMESPACE/]NAME")
    pod.set_defaults(command="pod")
    node = commands.add_parser("node", help="about one node", description=_NODE)
    node.add_argument("node", metavar="NODE")
    node.set_defaults(command="node")
    nodes = commands.add_parser("nodes", help="about all nodes: a line for each agent")
    nodes.add_argument("-o", "--output", choices=("table", "json"), default="table")
    nodes.add_argument("--no-headers", action="store_true", help="print the nodes alone")
    nodes.set_defaults(command="nodes")
    for command in (pod, node):
        command.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help=_WORDS)
    return parser


class _Version(argparse.Action):
    """Prints the versions and ends the process; a file that was copied alone has no version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        try:
            number = version("kube-netutil")
        except PackageNotFoundError:
            number = "unknown version: this Python has no distribution kube-netutil"
        _write(f"{_NAME} {number} (Python {python_version()})\n")
        parser.exit()


def _passed_on(options: argparse.Namespace) -> list[str]:
    """The options that say which cluster is meant."""
    given = {"--context": options.context, "--kubeconfig": options.kubeconfig}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def _of_pod(kubectl: list[str], options: argparse.Namespace) -> tuple[str, list[str]]:
    """The node of a pod, and what `netutil node` is asked there. LookupError if it has none."""
    namespace, slash, name = options.pod.partition("/")
    if not slash:
        namespace, name = options.namespace, namespace
    where = ["--namespace", namespace] if namespace else []
    found = _get(kubectl, "pod", name, *where)
    metadata = found["metadata"]
    full_name = f"{metadata['namespace']}/{metadata['name']}"
    node = found.get("spec", {}).get("nodeName")
    if not node:
        raise LookupError(f"pod {full_name} is on no node yet")
    return node, ["pod", full_name, *options.words]


def _agent(kubectl: list[str], namespace: str, node: str) -> str:
    """The agent's pod on a node; of two, during an update, the ready one. LookupError if none."""
    running = _agents(kubectl, namespace, "--field-selector", f"spec.nodeName={node}")
    if not running:
        raise LookupError(
            f"no agent runs on node {node} (namespace {namespace}, labels {_LABELS}):"
            " see --agent-namespace, and kubectl get pods -o wide"
        )
    return _newest(running)


def _agents(kubectl: list[str], namespace: str, *more: str) -> list[dict[str, Any]]:
    """The running pods of agents."""
    found = _get(kubectl, "pods", "--namespace", namespace, "--selector", _LABELS, *more)
    return [
        one
        for one in found["items"]
        if one.get("status", {}).get("phase") == "Running"
        and "deletionTimestamp" not in one["metadata"]
    ]


def _newest(agents: list[dict[str, Any]]) -> str:
    """The name of the ready agent, of several the newest."""
    chosen = max(agents, key=lambda one: (_is_ready(one), one["metadata"]["creationTimestamp"]))
    name: str = chosen["metadata"]["name"]
    return name


def _print_nodes(kubectl: list[str], options: argparse.Namespace) -> int:
    """Call the agent of each node, some at a time, and print a line for each node.

    LookupError if there is no agent.
    """
    by_node: dict[str, list[dict[str, Any]]] = {}
    for one in _agents(kubectl, options.agent_namespace):
        by_node.setdefault(one["spec"]["nodeName"], []).append(one)
    if not by_node:
        raise LookupError(
            f"no agent runs (namespace {options.agent_namespace}, labels {_LABELS}):"
            " see --agent-namespace"
        )
    agents = {node: _newest(pods) for node, pods in sorted(by_node.items())}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        call = partial(_summarize_node, kubectl, options.agent_namespace)
        found = list(pool.map(call, agents, agents.values()))
    if options.output == "json":
        text = json.dumps({"nodes": found}, indent=2) + "\n"
    else:
        rows = [[_cell(one[key]) for key in _COLUMNS] for one in found]
        header = [] if options.no_headers else [[name.upper() for name in _COLUMNS.values()]]
        text = _table(header + rows)
    written = _write(text)
    failed = [one for one in found if one["error"]]
    for one in failed:
        _say(f"node {one['node']}: {_cell(one['error'])}")
    return _FAILED if failed or not written else 0


def _summarize_node(kubectl: list[str], namespace: str, node: str, agent: str) -> dict[str, Any]:
    """The sums over the pods of a node; None where the agent does not answer, with the error."""
    command = [*kubectl, "exec", "--namespace", namespace, agent, "--container", _CONTAINER, "--"]
    command += ["netutil", "node", "pods", "-o", "json"]
    found: dict[str, Any] = {**dict.fromkeys(_COLUMNS), "node": node, "agent": agent, "error": ""}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_NODE_SECONDS
        )
        pods = json.loads(done.stdout)["pods"]
        sums = {key: sum(pod[key] for pod in pods) for key in _COUNTS}
    except subprocess.CalledProcessError as error:
        return found | {"error": str(error.stderr).strip() or f"ended with {error.returncode}"}
    except subprocess.TimeoutExpired:
        return found | {"error": f"no answer in {_NODE_SECONDS} s"}
    except (ValueError, KeyError, TypeError):
        return found | {"error": "its netutil is another version: the answer is not understood"}
    return found | sums | {"pods": len(pods)}


def _cell(value: object) -> str:
    return "-" if value is None else "".join(c if c.isprintable() else "?" for c in str(value))


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def _write(text: str) -> bool:
    """Write to the standard output; False if it is full, or its reader has ended."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter's own flush at exit would fail as well, with a traceback.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        _say(f"cannot write the output: {error.strerror}")
        return False
    return True


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _get(kubectl: list[str], *what: str) -> dict[str, Any]:
    """What `kubectl get` prints. CalledProcessError with what it says if it fails."""
    done = subprocess.run(
        [*kubectl, "get", *what, "--output", "json"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _say(text: str) -> None:
    print(f"{_NAME}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
