"""The demo: two "pods" on this machine ask one agent for their identity. `make demo`.

Needs root and iproute2, no cluster. Ends with 130 at Ctrl-C, 143 at SIGTERM.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from netutil.client.cli.exit_codes import Exit

from tests.support.lab import Lab, LabContainer, LabPod, LaunchFailed, why_no_lab
from tests.support.lab.agent import AgentFailed

_RULE = " │ "
_WIDTH = 120
_NARROWEST = 60
_INTERRUPTED = 130
_SRIOV_ADDRESS = "10.1.2.3"
_SRIOV_MAC = "02:00:0a:01:02:03"
_UPF_ADDRESS = "198.51.100.7"
_UPF_MAC = "02:00:c6:33:64:07"


def main() -> int:
    """Run the demo and return the exit code."""
    missing = why_no_lab()
    if missing:
        print(f"netutil demo: {missing} (and no cluster).", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with Lab() as lab:
            as_promised = _demonstrate(lab, _width())
    except KeyboardInterrupt:
        print("\nnetutil demo: interrupted; everything is cleaned up.", file=sys.stderr)
        return _INTERRUPTED
    except (AgentFailed, LaunchFailed, OSError, subprocess.TimeoutExpired) as error:
        print(f"netutil demo: {error}", file=sys.stderr)
        return 1
    print("Cleaned up: no process, cgroup, mount, interface or file is left.")
    return 0 if as_promised else 1


def _demonstrate(lab: Lab, width: int) -> bool:
    """Run the steps; return whether both pods were answered and the outsider refused."""
    _say(
        width,
        "netutil demo: one agent and two simulated pods (processes in cgroups and namespaces of"
        " their own) on this machine; no sidecar, no cluster.",
    )
    feed = _feed_handler(lab)
    upf = _upf(lab)
    agent = lab.agent()
    answered = True
    print(f"  agent   pid {agent.pid}, socket {lab.socket}")
    for container in (feed, upf):
        pod = container.pod
        print(
            f"  pod     {pod.namespace}/{pod.name} ({pod.qos}), container {container.name},"
            f" pid {container.pid} here and {container.pid_inside} inside,"
            f" sees /etc/netutil/net.sock"
        )
    for command in ((), ("whoami",)):
        print()
        answered &= _side_by_side(feed, upf, command, width)
    print()
    _say(
        width,
        "Both pods ran the same command on the same socket. The requests have no token and no name"
        " of a pod. The answers differ because the kernel names the calling process, and the cgroup"
        " of the process names the container and the pod.",
    )
    print()
    print("A process that is not in a pod calls the same socket:")
    done = subprocess.run(
        [*_command(), "--socket", str(lab.socket), "whoami"], capture_output=True, check=False
    )
    print("  $ netutil whoami")
    for line in (done.stdout + done.stderr).decode(errors="replace").splitlines():
        print(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="  "))
    print(f"  (exit code {done.returncode})")
    print()
    return answered and done.returncode == Exit.NOT_PERMITTED


def _feed_handler(lab: Lab) -> LabContainer:
    status = {
        "name": "trading/sriov",
        "interface": "net1",
        "ips": [_SRIOV_ADDRESS],
        "mac": _SRIOV_MAC,
        "device-info": {
            "type": "pci",
            "version": "1.1.0",
            "pci": {"pci-address": "0000:3b:02.1"},
        },
    }
    pod = lab.pod(
        "feed-handler",
        namespace="trading",
        qos="guaranteed",
        labels={"app": "feed-handler"},
    )
    _annotate(pod, status)
    pod.veth("net1", [f"{_SRIOV_ADDRESS}/24"], mac=_SRIOV_MAC)
    env = {"FEED": "mdp3", "CHANNELS": "310,312", "PCIDEVICE_VENDOR_COM_SRIOV": "0000:3b:02.1"}
    return pod.container("app", cpus=str(_cpus()[0]), env=env)


def _upf(lab: Lab) -> LabContainer:
    status = {
        "name": "telco/n3",
        "interface": "n3",
        "ips": [_UPF_ADDRESS],
        "mac": _UPF_MAC,
        "mtu": 1400,
    }
    pod = lab.pod(
        "upf",
        namespace="telco",
        driver="systemd",
        runtime="cri-o",
        labels={"app": "upf"},
    )
    _annotate(pod, status)
    pod.veth("n3", [f"{_UPF_ADDRESS}/24"], mac=_UPF_MAC, mtu=1400)
    env = {"DNN": "internet", "N3_INTERFACE": "n3", "WORKERS": "2"}
    cpus = ",".join(map(str, _cpus()[:2]))
    return pod.container("user-plane", cpus=cpus, quota=1.5, env=env)


def _annotate(pod: LabPod, status: Mapping[str, object]) -> None:
    """Write down what Multus would: the cluster's network, then the further one."""
    eth0 = pod.interfaces[0]
    cluster = {
        "name": "cluster",
        "interface": eth0.name,
        "ips": [pod.ip],
        "mac": eth0.mac,
        "default": True,
    }
    pod.annotations["k8s.v1.cni.cncf.io/network-status"] = json.dumps([cluster, status])


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _command() -> list[str]:
    """The real command: the one beside this Python, or its module."""
    script = Path(sys.executable).with_name("netutil")
    return [str(script)] if script.exists() else [sys.executable, "-m", "netutil.client"]


def _side_by_side(
    left: LabContainer, right: LabContainer, words: Sequence[str], width: int
) -> bool:
    column = (width - len(_RULE)) // 2
    answers = [container.run([*_command(), *words]) for container in (left, right)]
    texts = [
        _lines(container, words, answer)
        for container, answer in zip((left, right), answers, strict=True)
    ]
    for row in itertools.zip_longest(*texts, fillvalue=""):
        cells = [_fit(cell, column) for cell in row]
        print(_RULE.join(cells).rstrip())
    return all(answer.returncode == Exit.OK for answer in answers)


def _lines(
    container: LabContainer, words: Sequence[str], answer: subprocess.CompletedProcess[bytes]
) -> list[str]:
    prompt = f"{container.pod.namespace}/{container.pod.name} $ {' '.join(['netutil', *words])}"
    lines = (answer.stdout + answer.stderr).decode(errors="replace").splitlines()
    code = [f"(exit code {answer.returncode})"] if answer.returncode else []
    return [prompt, *lines, *code]


def _fit(text: str, width: int) -> str:
    """The text in exactly so many columns of a terminal, with "…" for what was cut off."""
    kept, used = "", 0
    for char in text:
        size = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used + size > width:
            return _fit(kept[:-1], width - 1) + "…"
        kept, used = kept + char, used + size
    return kept + " " * (width - used)


def _say(width: int, text: str) -> None:
    print(textwrap.fill(text, width))


def _width() -> int:
    return max(_NARROWEST, shutil.get_terminal_size((_WIDTH, 24)).columns)


def _terminated(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
