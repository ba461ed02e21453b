"""ListProcesses of a real agent: processes and threads of pods, and whose CPUs they are on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from netutil.client import NodeClient, NotFound
from netutil.client.cli.render.processes import processes as processes_of
from netutil.client.cli.render.processes import table
from netutil.client.models.processes import NodeProcess, ProcessReading
from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.nodes.dpdk_node import podresources

pytestmark = [pytest.mark.root, needs_lab]

TREASURE = "correct-horse-battery-staple"
CPUS = sorted(os.sched_getaffinity(0))
THREADS = """
import os, sys, threading, time

def pin(cpu, name):
    os.sched_setaffinity(0, {cpu})
    with open("/proc/thread-self/comm", "w") as comm:
        comm.write(name)
    ready.release()
    threading.Event().wait()

ready = threading.Semaphore(0)
cpus = list(map(int, sys.argv[1].split(",")))
for number, cpu in enumerate(cpus):
    threading.Thread(target=pin, args=(cpu, f"pinned {number}"), daemon=True).start()
    ready.acquire()
with open("/proc/self/comm", "w") as comm:
    comm.write("Threads:\\t99")
print("ready", flush=True)
while True:
    sum(range(10_000))
    time.sleep(0.001)
"""


@dataclass
class Node:
    lab: Lab
    web: LabPod
    app: LabContainer
    database: LabContainer
    pid: int


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Lab() as lab:
        web = lab.pod("web", namespace="shop")
        environment = {"KEY": TREASURE, "PATH": os.environ["PATH"]}
        app = web.container("app", env=environment, cpus=",".join(map(str, CPUS)))
        database = lab.pod("db", namespace="shop").container("db", cpus=str(CPUS[-1]))
        lab.pod("quiet").container("app")
        argv = [sys.executable, "-c", THREADS, f"{CPUS[0]},{CPUS[-1]}", TREASURE]
        path = lab.directory / "kubelet.sock"
        with podresources(path) as kubelet, app.spawn(argv) as program:
            given = v1.ContainerResources(name="db", cpu_ids=[CPUS[-1]])
            kubelet.pods = [v1.PodResources(name="db", namespace="shop", containers=[given])]
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
            lab.agent(f"--pod-resources={path}")
            yield Node(lab, web, app, database, program.host_pid)
            program.kill()


@pytest.fixture
def client(node: Node) -> Iterator[NodeClient]:
    with NodeClient(node.lab.admin_socket, timeout_seconds=20) as client:
        yield client


def by_pod(reading: ProcessReading) -> dict[str, list[NodeProcess]]:
    return {
        f"{pod.namespace}/{pod.pod}": [one.process for one in pod.processes] for pod in reading.pods
    }


def program_of(node: Node, reading: ProcessReading) -> NodeProcess:
    (found,) = (one for one in by_pod(reading)["shop/web"] if one.pid == node.pid)
    return found


def test_every_process_of_a_pod_is_listed_in_its_container(node: Node, client: NodeClient) -> None:
    processes = by_pod(client.processes("shop", "web"))["shop/web"]
    found = {one.pid: one.container for one in processes}
    assert found == {node.app.pid: "app", node.pid: "app", node.web.sandbox_pid: ""}
    sandbox = next(one for one in processes if one.pid == node.web.sandbox_pid)
    assert sandbox.container_id not in ("", node.app.id)


def test_processes_in_no_container_of_a_pod_are_listed(node: Node, client: NodeClient) -> None:
    """CRI-O's monitor, and on cgroup v1 a process in the pod's own cgroup."""
    pod = {directory.parent for directory in node.app.cgroups}
    monitors = [directory / f"crio-conmon-{node.app.id}.scope" for directory in pod]
    with (
        subprocess.Popen(["sleep", "infinity"]) as monitor,
        subprocess.Popen(["sleep", "infinity"]) as direct,
    ):
        try:
            for directory in monitors:
                directory.mkdir()
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if (directory / name).exists():
                        (directory / name).write_text((directory.parent / name).read_text())
                (directory / "cgroup.procs").write_text(str(monitor.pid))
            expected = {monitor.pid}
            for directory in pod:
                with suppress(OSError):  # EBUSY on cgroup v2: the pod's has controllers
                    (directory / "cgroup.procs").write_text(str(direct.pid))
                    expected.add(direct.pid)
            reading = client.processes("shop", "web")
        finally:
            for process in (monitor, direct):
                process.kill()
                process.wait()
            for directory in monitors:
                directory.rmdir()
    (web,) = reading.pods
    assert web.errors == ()
    found = {one.process.pid: one.process for one in web.processes}
    outside = {pid for pid, one in found.items() if not one.container_id}
    assert outside == expected
    assert {found[pid].container for pid in outside} == {""}
    assert found[node.app.pid].container == "app"
    shown = processes_of(None, reading, "name")
    table_shown = table(shown, datetime.now(UTC), None, None, pods=False)
    assert [row[0] for row in table_shown.rows].count("(pod)") == len(expected)


def test_all_pods_are_listed_by_namespace_and_name(node: Node, client: NodeClient) -> None:
    reading = client.processes()
    assert list(by_pod(reading)) == ["default/quiet", "shop/db", "shop/web"]
    assert node.database.pid in [one.pid for one in by_pod(reading)["shop/db"]]
    assert all(pod.errors == () for pod in reading.pods)


def test_a_process_is_described_as_psutil_and_the_kernel_do(node: Node, client: NodeClient) -> None:
    process = program_of(node, client.processes("shop", "web"))
    real = psutil.Process(node.pid)
    assert process.pid_inside == inside_pid(node.pid) != node.pid
    assert abs(process.started_at.timestamp() - real.create_time()) < 2
    assert (
        process.allowed_cpus
        == Path(f"/proc/{node.pid}/status")
        .read_text()
        .partition("Cpus_allowed_list:\t")[2]
        .partition("\n")[0]
    )
    assert process.rss_bytes is not None and process.cpu_seconds is not None
    assert abs(process.rss_bytes - real.memory_info().rss) < 4 * 2**20
    assert process.cpu_seconds <= round(sum(real.cpu_times()[:2]), 2)
    assert process.cpu in CPUS
    assert (process.threads, process.error) == ((), "")


def test_a_name_is_taken_for_no_field(node: Node, client: NodeClient) -> None:
    process = program_of(node, client.processes("shop", "web"))
    assert (process.name, process.thread_count) == ("Threads:\t99", 3)
    assert psutil.Process(node.pid).num_threads() == 99  # why it is not read by psutil


def test_each_thread_is_listed_with_its_own_cpus(node: Node, client: NodeClient) -> None:
    process = program_of(node, client.processes("shop", "web", threads=True))
    main, *pinned = sorted(process.threads, key=lambda one: one.tid)
    assert main.tid == node.pid and main.tid_inside == process.pid_inside
    assert [(one.name, one.allowed_cpus, one.cpu) for one in pinned] == [
        ("pinned 0", str(CPUS[0]), CPUS[0]),
        ("pinned 1", str(CPUS[-1]), CPUS[-1]),
    ]
    assert all(one.state == "sleeping" for one in pinned)


def test_a_thread_has_its_own_time_on_cpus(node: Node, client: NodeClient) -> None:
    process = program_of(node, client.processes("shop", "web", threads=True))
    main, *pinned = sorted(process.threads, key=lambda one: one.tid)
    assert process.cpu_seconds is not None and main.cpu_seconds is not None
    assert all(one.cpu_seconds is not None and one.cpu_seconds < 0.1 for one in pinned)
    later = program_of(node, client.processes("shop", "web", threads=True))
    assert later.cpu_seconds is not None and later.cpu_seconds >= process.cpu_seconds


def test_a_thread_on_an_exclusive_cpu_is_marked_with_its_owner(node: Node) -> None:
    done = command(node, "pod", "shop/web", "--threads", "--interval", "0.2", "-o", "json")
    answer = json.loads(done)
    (process,) = (one for one in answer["processes"] if one["pid"] == node.pid)
    threads = {one["name"]: one for one in process["threads"]}
    beside, on = threads["pinned 0"]["placement"], threads["pinned 1"]["placement"]
    owner = "shop/db/db"
    assert on["cpu_exclusive_of"] == owner
    assert on["may_use"] == [{"container": owner, "cpus": str(CPUS[-1])}]
    if len(CPUS) > 1:
        assert (beside["cpu_exclusive_of"], beside["may_use"]) == ("", [])
    assert process["cpu_percent"] > 1


def test_the_table_shows_the_processes_of_each_cpu(node: Node) -> None:
    text = command(node, "pod", "shop/web", "--threads", "--interval", "0.2")
    (line,) = (one for one in text.splitlines() if "pinned 1" in one)
    last = CPUS[-1]
    assert line.endswith(f"ON {last} of shop/db/db, may use {last} of shop/db/db")
    text = command(node, "top", "--processes", "--once", "--interval", "0.2", "--sort", "name")
    (line,) = (one for one in text.splitlines() if one.startswith("shop/db") and " db " in one)
    assert line.endswith(" own")


def test_the_list_has_no_argument_and_no_environment(node: Node, client: NodeClient) -> None:
    for threads in (False, True):
        assert TREASURE not in repr(client.processes(threads=threads))
    assert TREASURE not in command(node, "top", "--threads", "--once", "--interval", "0.1")


def test_a_pod_of_another_node_has_no_processes(client: NodeClient) -> None:
    with pytest.raises(NotFound) as missing:
        client.processes("shop", "elsewhere")
    assert missing.value.reason == "POD_NOT_FOUND"


def command(node: Node, *words: str) -> str:
    argv = [sys.executable, "-m", "netutil.client", "node", *words]
    environment = os.environ | {"NETUTIL_ADMIN_SOCKET": str(node.lab.admin_socket)}
    return subprocess.run(argv, env=environment, capture_output=True, check=True, text=True).stdout
