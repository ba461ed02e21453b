"""Answers of the operator socket with every field set."""

from __future__ import annotations

from collections import deque
from typing import Any

from netutil.v1alpha import netutil_pb2, node_pb2

from tests.support.answers import core as answers
from tests.support.answers import devices as device_answers

BOUNDS = (0.001, 0.005, 1.0)


def described_pod() -> node_pb2.DescribePodResponse:
    (pod, _) = answers.node_pods().pods
    app, side, setup = pod.containers
    missing = netutil_pb2.PartError(
        part="resources",
        code="UNAVAILABLE",
        reason="POD_RESOURCES_UNAVAILABLE",
        message="The socket does not exist.",
    )
    return node_pb2.DescribePodResponse(
        pod=pod,
        cgroup_uid=pod.uid,
        node_name="node-1",
        service_account="web",
        ips=["10.244.0.5"],
        labels={"tier": "front"},
        annotations=["example.com/note"],
        observed_at=answers.observed_at(),
        containers=[
            node_pb2.DescribedContainer(
                container=app,
                started_at=answers.observed_at(),
                processes=20,
                pids=range(100, 116),
                cpu=answers.cpu(),
                hugepages=device_answers.hugepages(),
                resources=device_answers.resources(),
                sources=[node_pb2.FactSource(part="cpu", read="/sys/fs/cgroup/cpuset/app")],
            ),
            node_pb2.DescribedContainer(container=side, errors=[missing]),
            node_pb2.DescribedContainer(container=setup),
        ],
        network_status=answers.network_status(),
        interfaces=device_answers.interfaces(),
        sources=[node_pb2.FactSource(part="pod", read="https://127.0.0.1:10250/pods")],
        errors=[missing],
        resources=[
            node_pb2.ResourceAmount(
                name="cpu", request="1", limit="2", granted_request="1", granted_limit="1500m"
            )
        ],
        not_understood=["status.podIP"],
    )


def described_node() -> node_pb2.DescribeNodeResponse:
    return node_pb2.DescribeNodeResponse(
        node_name="node-1",
        kernel="6.1.0-28-amd64",
        cpus=answers.cpu().cpus,
        network_devices=[
            node_pb2.NetworkDevice(
                pci=netutil_pb2.PCIInfo(address="0000:3b:00.0", driver="ice", numa_node=0),
                interfaces=["ens1f0"],
            )
        ],
        cpu_counts=node_pb2.CPUCounts(logical=5, cores=3),
        host_interfaces=host_interfaces(),
    )


def host_interfaces() -> node_pb2.HostInterfaces:
    """A hardware link, and a veth of a bridge with more traffic and errors."""
    return node_pb2.HostInterfaces(
        interfaces=[
            node_pb2.HostInterface(
                name="ens1f0",
                index=2,
                kind="",
                mac="02:00:00:00:00:01",
                mtu=9000,
                operational_state="UP",
                up=True,
                master="",
                parent_device_bus="pci",
                parent_device="0000:3b:00.0",
                counters=netutil_pb2.LinkCounters(rx_bytes=7, tx_bytes=8, rx_dropped=3),
                speed_megabits=25000,
                duplex="full",
            ),
            node_pb2.HostInterface(
                name="veth\x1b[31m",
                index=9,
                kind="veth",
                mac="02:00:00:00:00:02",
                mtu=1500,
                operational_state="UP",
                up=True,
                master="cni0",
                counters=netutil_pb2.LinkCounters(rx_bytes=2**63, rx_errors=5, tx_errors=1),
            ),
        ]
    )


def pod_activity(
    name: str, calls: int, refused: int, seconds: float, counts: tuple[int, ...]
) -> node_pb2.PodActivity:
    return node_pb2.PodActivity(
        namespace="default" if name else "",
        name=name,
        uid=f"{name or 'old'}-uid",
        connections=2 if name == "web-0" else 0,
        open_calls=1 if name == "web-0" else 0,
        calls=calls,
        refused=refused,
        seconds=seconds,
        latency_counts=counts,
        last_error="PID_OUTSIDE_POD" if refused else "",
        not_found=refused - 3 if refused > 3 else 0,
    )


def activity(uptime_seconds: float, *pods: node_pb2.PodActivity) -> node_pb2.GetActivityResponse:
    return node_pb2.GetActivityResponse(
        uptime_seconds=uptime_seconds,
        pods=pods,
        latency_bounds_seconds=BOUNDS,
        connections=2,
        max_connections=4096,
        watchers=1,
    )


def activities() -> deque[node_pb2.GetActivityResponse]:
    quiet = pod_activity("quiet", 7, 0, 0.1, (7, 0, 0, 0))
    return deque(
        [
            activity(100.0, pod_activity("web-0", 1000, 3, 5.0, (900, 100, 0, 0)), quiet),
            activity(
                110.0,
                quiet,
                pod_activity("web-0", 1100, 8, 5.2, (980, 119, 1, 0)),
                pod_activity("", 10, 10, 60.0, (0, 0, 0, 10)),
            ),
        ]
    )


def process(
    pid: int, cpu_seconds: float, *tids: tuple[int, float], container: str = "app", **fields: Any
) -> node_pb2.NodeProcess:
    """A process that may use CPUs 0 to 3 and runs on 2, and its threads with their time."""
    chosen: dict[str, Any] = {
        "name": "server",
        "state": "sleeping",
        "thread_count": 2,
        "allowed_cpus": "0-3",
        "cpu": 2,
        "rss_bytes": 3 * 2**20,
        "start_ticks": pid,
    }
    return node_pb2.NodeProcess(
        pid=pid,
        pid_inside=pid - 4700,
        container=container,
        container_id="4" * 64,
        cpu_seconds=cpu_seconds,
        started_at=answers.observed_at(),
        threads=[
            node_pb2.NodeThread(
                tid=tid,
                tid_inside=tid - 4700,
                name="worker",
                state="running",
                allowed_cpus="1",
                cpu=1,
                cpu_seconds=seconds,
                start_ticks=tid,
            )
            for tid, seconds in tids
        ],
        **chosen | fields,
    )


def processes_part(
    at: float, *found: node_pb2.NodeProcess, pod: str = "web-0", **fields: Any
) -> node_pb2.ListProcessesResponse:
    return node_pb2.ListProcessesResponse(
        namespace="default", pod=pod, processes=found, read_at_seconds=at, **fields
    )


def exclusive_cpus() -> node_pb2.ListProcessesResponse:
    owners = [("web-0", "app", "1"), ("db-0", "db", "2-3")]
    containers = [
        node_pb2.ExclusiveContainer(namespace="default", pod=pod, container=name, cpus=cpus)
        for pod, name, cpus in owners
    ]
    return node_pb2.ListProcessesResponse(
        exclusive_cpus=node_pb2.ExclusiveCPUs(containers=containers)
    )


def processes() -> deque[list[node_pb2.ListProcessesResponse]]:
    """Two lists, two seconds apart, the second with the threads of a process in two messages."""
    return deque(
        [
            [
                exclusive_cpus(),
                processes_part(100.0, process(4711, 5.0, (4712, 1.0), (4713, 1.0))),
                processes_part(0.0),
            ],
            [
                exclusive_cpus(),
                processes_part(102.0, process(4711, 6.0, (4712, 1.5))),
                processes_part(102.1, process(4711, 6.0, (4713, 1.0))),
                processes_part(102.2, process(4720, 9.0, rss_bytes=9 * 2**20)),
                processes_part(0.0, threads_truncated=True),
                processes_part(0.0, pod="db-0", processes_truncated=True),
            ],
        ]
    )


def traced() -> list[node_pb2.TraceResponse]:
    answered = node_pb2.TracedCall(
        at=answers.observed_at(),
        method="GetEnv",
        event="answered",
        namespace="default",
        pod="web-0",
        container="app",
        container_id="4" * 64,
        pid=4711,
        uid=1000,
        code="NOT_FOUND",
        reason="VARIABLE_NOT_SET",
        seconds=0.0012,
    )
    began = node_pb2.TracedCall(
        at=answers.observed_at(), method="Watch", event="began", code="OK", seconds=0.01
    )
    return [
        node_pb2.TraceResponse(),
        node_pb2.TraceResponse(calls=[answered]),
        node_pb2.TraceResponse(calls=[began], lost=12),
    ]


def explanation() -> node_pb2.ExplainResponse:
    return node_pb2.ExplainResponse(
        pid=7,
        steps=[
            node_pb2.ExplainStep(name="pid", outcome="ok", found=["it runs"]),
            node_pb2.ExplainStep(
                name="cgroup",
                outcome="stopped",
                found=["line 1 (unified): /user.slice", "The calling process is in no pod."],
                code="PERMISSION_DENIED",
                reason="NOT_A_POD",
                read="/proc/<pid>/cgroup",
                advice="Only processes in pods are answered.",
            ),
        ],
    )


def diagnosis() -> node_pb2.DiagnoseResponse:
    return node_pb2.DiagnoseResponse(
        checks=[
            node_pb2.Check(name="hostPID", outcome="ok", found="first PID namespace"),
            node_pb2.Check(name="clock", outcome="warning", found="unset", remedy="Set it."),
        ]
    )
