"""A node of the lab as the measurements want it: pods like those that netutil is made for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil

from bench.answers import METHODS
from tests.support.lab import Lab, LabContainer, LabPod

TREE = Path(__file__).parent.parent
ENV = {
    "PYTHONPATH": os.environ.get("PYTHONPATH", str(TREE)),
    "PATH": os.environ["PATH"],
}
"""Of a Python process in a pod."""
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
"""The annotation of Multus."""
_VARIABLES = 40  # a pod in a namespace with a few services
_START_SECONDS = 60.0
_CPUCLOCK_SCHED = 2  # include/linux/posix-timers_types.h


def pod(lab: Lab, name: str) -> LabPod:
    """Start a pod with two interfaces, its report of them and a container `app`."""
    one = lab.pod(name, namespace="telco", labels={"app": "upf", "tier": "user-plane"})
    net1 = one.veth("net1", ["192.0.2.5/24"])
    one.annotations[NETWORK_STATUS] = json.dumps(
        [
            {
                "name": "cbr0",
                "interface": "eth0",
                "ips": [one.ip],
                "mac": one.interfaces[0].mac,
                "default": True,
                "dns": {},
            },
            {
                "name": "telco/n3",
                "interface": "net1",
                "ips": ["192.0.2.5"],
                "mac": net1.mac,
                "dns": {"nameservers": ["192.0.2.1"]},
            },
        ]
    )
    variables = {f"SERVICE_{n:02d}_PORT_8080_TCP_ADDR": f"10.96.0.{n}" for n in range(_VARIABLES)}
    one.container("app", env={"PATH": os.environ["PATH"], "HOSTNAME": name, **variables})
    return one


def app(one: LabPod) -> LabContainer:
    """Return the container of a pod that `pod` started."""
    return one.containers[0]


def light_pods(lab: Lab, count: int) -> list[LabContainer]:
    """Start pods with eth0 and one container, and return the containers."""
    return [lab.pod(f"pod-{n}", namespace="telco").container("app") for n in range(count)]


def ask_each_method(
    container: LabContainer, methods: Sequence[str] = tuple(METHODS)
) -> dict[str, bytes]:
    """Return what the agent answers a process in the container to each method."""
    code = (
        "import grpc, json, sys, base64\n"
        "channel = grpc.insecure_channel('unix:/etc/netutil/net.sock',"
        " options=[('grpc.default_authority', 'localhost')])\n"
        "print(json.dumps({m: base64.b64encode(channel.unary_unary('/v1alpha.NetUtil/' + m)"
        "(b'', timeout=30)).decode() for m in sys.argv[1:]}))\n"
    )
    done = container.run([sys.executable, "-c", code, *methods])
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return {m: b64decode(text) for m, text in json.loads(done.stdout).items()}


@contextmanager
def server(socket: Path, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on the host that listens at a new socket, until the end of the block."""
    process = subprocess.Popen([sys.executable, "-OO", "-m", *command], env=os.environ | ENV)
    try:
        wait_for_socket(socket)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_socket(path: Path) -> None:
    """Return when a gRPC server answers there. TimeoutError after a minute."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, all its threads together, those that ended included.

    By its CPU clock, to the nanosecond (clock_getcpuclockid(3)).
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def pss_mib(pid: int) -> float:
    """Return the proportional set size: shared pages count by their share (smaps_rollup)."""
    return float(psutil.Process(pid).memory_full_info().pss) / 2**20


def rss_mib(pid: int) -> float:
    """Return the resident set size: shared pages count in full, as if they were not shared."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return psutil.Process(pid).num_fds()


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return psutil.Process(pid).num_threads()
