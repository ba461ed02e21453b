"""The lab itself: what it makes is what a kubelet and a runtime make, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.lab import AgentFailed, Lab, LabContainer, LaunchFailed, why_no_lab
from tests.lab.cgroups import find_hierarchies
from tests.lab.ownership import is_stale, new_name
from tests.lab.processes import wait_gone
from tests.lab.shapes import Driver, QoS, Runtime, container_name, pod_path

needs_lab = pytest.mark.skipif(why_no_lab() is not None, reason=f"the lab {why_no_lab()}")

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
UID_IN_SLICES = "2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b"
STAND_IN = """
import socket, sys, signal
path = next(a for a in sys.argv if a.startswith("--socket=")).partition("=")[2]
listener = socket.socket(socket.AF_UNIX)
import os
listener.bind(path + ".new"); listener.listen(); os.rename(path + ".new", path)
print("listening", *sys.argv[1:], file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True: signal.pause()
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def cgroup_paths(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return [line.split(":", 2)[2] for line in lines]


def namespaces(pid: int) -> dict[str, int]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in kinds}


def traces(name: str) -> list[str]:
    """Whatever of a lab is still there."""
    found = [str(h.directory / name) for h in find_hierarchies() if (h.directory / name).exists()]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [line for line in mounts if name in line]
    found += [str(path) for path in (Path("/tmp") / name,) if path.exists()]
    for process in psutil.process_iter():
        try:
            if any(f"/{name}" in path for path in cgroup_paths(process.pid)):
                found.append(f"process {process.pid}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    found += [
        name for name in os.listdir("/sys/class/net") if re.fullmatch("lab[0-9a-f]{10}", name)
    ]
    return found


@pytest.mark.parametrize(
    ("qos", "driver", "path"),
    [
        ("guaranteed", "cgroupfs", f"kubepods/pod{UID}"),
        ("burstable", "cgroupfs", f"kubepods/burstable/pod{UID}"),
        ("besteffort", "cgroupfs", f"kubepods/besteffort/pod{UID}"),
        ("guaranteed", "systemd", f"kubepods.slice/kubepods-pod{UID_IN_SLICES}.slice"),
        (
            "burstable",
            "systemd",
            f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_IN_SLICES}.slice",
        ),
    ],
)
def test_pod_cgroups_are_named_as_the_kubelet_does(qos: QoS, driver: Driver, path: str) -> None:
    assert pod_path(UID, qos, driver) == path


@pytest.mark.parametrize(
    ("runtime", "driver", "name"),
    [
        ("containerd", "cgroupfs", "ID"),
        ("docker", "cgroupfs", "ID"),
        ("cri-o", "cgroupfs", "crio-ID"),
        ("containerd", "systemd", "cri-containerd-ID.scope"),
        ("docker", "systemd", "docker-ID.scope"),
        ("cri-o", "systemd", "crio-ID.scope"),
    ],
)
def test_container_cgroups_are_named_as_the_runtime_does(
    runtime: Runtime, driver: Driver, name: str
) -> None:
    assert container_name("ID", runtime, driver) == name


def test_the_name_of_a_live_owner_is_not_stale() -> None:
    assert not is_stale(new_name())


def test_the_name_of_a_reused_pid_is_stale() -> None:
    prefix, pid, _, chance = new_name().rsplit("-", 3)

    assert is_stale(f"{prefix}-{pid}-1-{chance}")


@pytest.mark.parametrize("name", ["netutil-lab-1-999999999-1-abcdef", "netutil-lab-x", "kubepods"])
def test_names_that_nobody_can_judge_are_left_alone(name: str) -> None:
    assert not is_stale(name)


@pytest.mark.root
@needs_lab
@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
@pytest.mark.parametrize("runtime", ["containerd", "cri-o", "docker"])
def test_every_hierarchy_shows_the_container(lab: Lab, runtime: Runtime, driver: Driver) -> None:
    pod = lab.pod("web", runtime=runtime, driver=driver)
    container = pod.container("app")

    path = f"/{lab.name}/{pod_path(pod.uid, 'burstable', driver)}/"
    path += container_name(container.id, runtime, driver)

    paths = cgroup_paths(container.pid)
    assert container.cgroup_path == path
    assert sum(shown.endswith(path) for shown in paths) == len(find_hierarchies())
    assert re.fullmatch("[0-9a-f]{64}", container.id)


@pytest.mark.root
@needs_lab
def test_containers_share_what_a_sandbox_holds_and_nothing_else(lab: Lab) -> None:
    pod = lab.pod("web")
    one, two, other = pod.container("a"), pod.container("b"), lab.pod("other").container("a")

    first, second, foreign = (namespaces(c.pid) for c in (one, two, other))
    host = namespaces(os.getpid())

    assert {kind for kind in first if first[kind] == second[kind]} == {
        "cgroup",
        "ipc",
        "net",
        "uts",
    }
    assert {kind for kind in first if first[kind] == foreign[kind]} == {"cgroup"}
    assert {kind for kind in first if first[kind] == host[kind]} == {"cgroup"}
    assert one.pid_inside == two.pid_inside == 1


@pytest.mark.root
@needs_lab
def test_a_shared_pid_namespace_keeps_containers_apart_by_cgroup(lab: Lab) -> None:
    pod = lab.pod("web", share_process_namespace=True)
    one, two = pod.container("a"), pod.container("b")

    assert namespaces(one.pid)["pid"] == namespaces(two.pid)["pid"]
    assert 1 < one.pid_inside < two.pid_inside
    assert cgroup_paths(one.pid) != cgroup_paths(two.pid)
    seen = one.run(["cat", f"/proc/{two.pid_inside}/comm"])
    assert seen.stdout == b"sleep\n"


@pytest.mark.root
@needs_lab
def test_a_host_network_pod_has_the_hosts_network(lab: Lab) -> None:
    pod = lab.pod("web", host_network=True)
    container = pod.container("app")

    host = namespaces(os.getpid())
    shown = namespaces(container.pid)

    assert {kind for kind in shown if shown[kind] == host[kind]} == {"cgroup", "net", "uts"}
    with pytest.raises(ValueError, match="host-network"):
        pod.veth("net1")


@pytest.mark.root
@needs_lab
def test_a_private_cgroup_namespace_hides_the_path_inside_only(lab: Lab) -> None:
    container = lab.pod("web").container("app", private_cgroup_namespace=True)

    inside = container.run(["cat", "/proc/self/cgroup"]).stdout.decode().splitlines()

    assert {line.split(":", 2)[2] for line in inside if lab.name in line} == set()
    assert container.cgroup_path in cgroup_paths(container.pid)


@pytest.mark.root
@needs_lab
def test_a_static_pods_uid_is_its_config_hash(lab: Lab) -> None:
    pod = lab.pod("web", static=True)

    assert re.fullmatch("[0-9a-f]{32}", pod.uid)
    assert pod.annotations["kubernetes.io/config.hash"] == pod.uid


@pytest.mark.root
@needs_lab
def test_the_environment_is_exactly_what_was_given(lab: Lab) -> None:
    pod = lab.pod("web")
    named = pod.container("a", env={"A": "1", "B": b"\xff=\n", "C": ""})
    raw = pod.container("b", env=[b"X=1", b"no equals sign", b"X=2", b"\xc3\x28="])

    assert Path(f"/proc/{named.pid}/environ").read_bytes() == b"A=1\0B=\xff=\n\0C=\0"
    assert Path(f"/proc/{raw.pid}/environ").read_bytes() == b"X=1\0no equals sign\0X=2\0\xc3\x28=\0"


@pytest.mark.root
@needs_lab
def test_run_enters_everything_as_kubectl_exec_does(lab: Lab) -> None:
    container = lab.pod("web").container("app", env={"A": b"\xff"}, uid=1000, gid=1001)
    script = "readlink /proc/self/ns/*; cat /proc/self/cgroup; id -u; id -g; id -G; hostname"

    shown = container.run(["sh", "-c", script]).stdout.decode().splitlines()

    expected = {
        os.readlink(f"/proc/{container.pid}/ns/{kind}") for kind in namespaces(container.pid)
    }
    assert expected <= set(shown)
    assert (
        Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
        == shown[-4 - len(cgroup_paths(container.pid)) : -4]
    )
    assert shown[-4:] == ["1000", "1001", "1001", "web"]
    assert b"A=\xff\0" in container.run(["cat", "/proc/self/environ"]).stdout


@pytest.mark.root
@needs_lab
def test_run_takes_input_user_and_environment_and_gives_the_exit_code(lab: Lab) -> None:
    container = lab.pod("web").container("app")

    done = container.run(
        ["sh", "-c", "cat; echo $B >&2; exit 7"], env={"B": "2"}, uid=5, input=b"in"
    )

    assert (done.stdout, done.stderr, done.returncode) == (b"in", b"2\n", 7)
    assert container.run(["sh", "-c", "kill -SEGV $$"]).returncode == -signal.SIGSEGV
    with pytest.raises(LaunchFailed, match="nonesuch"):
        container.run(["nonesuch"])
    with pytest.raises(subprocess.TimeoutExpired):
        container.run(["sleep", "60"], timeout=0.1)


@pytest.mark.root
@needs_lab
def test_a_spawned_process_is_known_by_its_host_pid_and_dies_with_its_handle(lab: Lab) -> None:
    container = lab.pod("web").container("app")

    with container.spawn(["cat"], stdin=subprocess.PIPE) as process:
        assert container.cgroup_path in cgroup_paths(process.host_pid)
        assert namespaces(process.host_pid) == namespaces(container.pid)
        process.kill()
        process.wait(5)

    wait_gone(process.host_pid, timeout=5)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.root
@needs_lab
def test_the_socket_directory_stands_at_etc_netutil_inside_only(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    (lab.socket.parent / "hello").write_text("from the host")

    assert container.run(["cat", "/etc/netutil/hello"]).stdout == b"from the host"
    assert b"root:" in container.run(["cat", "/etc/passwd"]).stdout
    assert not Path("/etc/netutil/hello").exists()
    assert not any(lab.name in line for line in Path("/proc/self/mountinfo").read_text().split())


@pytest.mark.root
@needs_lab
def test_a_pod_has_real_interfaces(lab: Lab) -> None:
    pod = lab.pod("web")
    pod.veth("net1", ["10.1.2.3/24", "fd00::3/64"], mac="02:00:00:00:00:07", mtu=1400)

    shown = json.loads(pod.container("app").run(["ip", "-json", "address"]).stdout)
    links = {link["ifname"]: link for link in shown}

    assert set(links) == {"lo", "eth0", "net1"}
    assert links["net1"]["address"] == "02:00:00:00:00:07"
    assert (links["net1"]["mtu"], links["net1"]["operstate"]) == (1400, "UP")
    addresses = {address["local"] for address in links["net1"]["addr_info"]}
    assert {"10.1.2.3", "fd00::3"} <= addresses
    assert pod.ip in {address["local"] for address in links["eth0"]["addr_info"]}
    assert "net1" not in os.listdir("/sys/class/net")


@pytest.mark.root
@needs_lab
def test_cpus_and_quota_are_set_where_the_kernel_knows_them(lab: Lab) -> None:
    cpu = str(max(os.sched_getaffinity(0)))
    container = lab.pod("web").container("app", cpus=cpu, quota=0.5)

    def values(name: str) -> set[str]:
        files = [directory / name for directory in container.cgroups]
        return {file.read_text().strip() for file in files if file.exists()}

    assert values("cpuset.cpus") <= {cpu}
    assert values("cpu.cfs_quota_us") <= {"50000"}
    assert values("cpu.max") <= {"50000 100000"}
    assert os.sched_getaffinity(container.pid) <= os.sched_getaffinity(0)


@pytest.mark.root
@needs_lab
def test_the_pod_list_is_what_a_kubelet_prints(lab: Lab) -> None:
    pod = lab.pod("web", namespace="shop", qos="guaranteed", labels={"app": "web"}, runtime="cri-o")
    app, setup = pod.container("app"), pod.container("setup", kind="init")
    setup.kill()
    lab.pod("gone").delete()

    listed = json.loads(lab.write_pod_list().read_text())

    (item,) = listed["items"]
    assert (listed["kind"], listed["apiVersion"]) == ("PodList", "v1")
    assert item["metadata"]["uid"] == pod.uid
    assert (item["metadata"]["namespace"], item["metadata"]["labels"]) == ("shop", {"app": "web"})
    assert (item["status"]["podIP"], item["status"]["qosClass"]) == (pod.ip, "Guaranteed")
    assert item["status"]["containerStatuses"][0]["containerID"] == f"cri-o://{app.id}"
    assert "running" in item["status"]["containerStatuses"][0]["state"]
    assert "terminated" in item["status"]["initContainerStatuses"][0]["state"]
    assert [c["name"] for c in item["spec"]["initContainers"]] == ["setup"]


@pytest.mark.root
@needs_lab
def test_killing_a_container_leaves_the_rest_of_its_pod(lab: Lab) -> None:
    pod = lab.pod("web")
    one, two = pod.container("a"), pod.container("b")

    one.kill()

    assert not any(directory.exists() for directory in one.cgroups)
    assert two.run(["true"]).returncode == 0


@pytest.mark.root
@needs_lab
def test_an_agent_is_ready_when_it_listens_and_stops_at_sigterm(lab: Lab) -> None:
    agent = lab.agent("--log-level=debug", command=[sys.executable, "-c", STAND_IN])

    assert os.readlink(f"/proc/{agent.pid}/exe") == os.path.realpath(sys.executable)
    assert f"--pod-source=file:{lab.directory}/pods.json" in agent.stderr_text()
    second = lab.agent(command=[sys.executable, "-c", STAND_IN])
    assert agent.stop() == 0
    assert second.running
    assert not agent.running


@pytest.mark.root
@needs_lab
def test_an_agent_that_ends_early_is_told_with_its_log(lab: Lab) -> None:
    with pytest.raises(AgentFailed, match="ended with 3:\nno such flag"):
        lab.agent(command=["sh", "-c", "echo no such flag >&2; exit 3"])


@pytest.mark.root
@needs_lab
def test_the_real_agent_answers_a_container(lab: Lab) -> None:
    container = lab.pod("web", namespace="shop").container("app", env={"A": "1"})
    agent = lab.agent()

    done = container.run([sys.executable, "-m", "netutil.client", "whoami", "-o", "json"])

    assert json.loads(done.stdout)["name"] == "web", done.stderr
    with urllib.request.urlopen(f"{agent.metrics_url}/healthz", timeout=5) as answer:
        assert answer.status == 200
    assert agent.stop() == 0


@pytest.mark.root
@needs_lab
def test_nothing_is_left_after_an_exception() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ZeroDivisionError), Lab() as lab:  # noqa: PT012 - the lab is the point
        busy = lab.pod("web", driver="systemd").container("app")
        process = busy.spawn(["sh", "-c", "sleep 60 & sleep 60"])
        lab.agent(command=[sys.executable, "-c", STAND_IN])
        freeze(busy)
        raise ZeroDivisionError

    assert traces(lab.name) == []
    assert process.returncode == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not [c for c in psutil.Process().children() if "launch.py" in " ".join(c.cmdline())]


def freeze(container: LabContainer) -> None:
    for directory in container.cgroups:
        if (directory / "freezer.state").exists():
            (directory / "freezer.state").write_text("FROZEN")


OWNER = """
import signal, time
from tests.lab import Lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with Lab() as lab:
    container = lab.pod("web").container("app")
    process = container.spawn(["sleep", "600"])
    print(lab.name, container.pid, process.host_pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner() -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """A process with a lab of its own: its name and its processes."""
    repository = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=repository,
    ) as process:
        assert process.stdout
        name, *pids = process.stdout.readline().split()
        yield process, name, [int(pid) for pid in pids]
        process.kill()


@pytest.mark.root
@needs_lab
def test_nothing_is_left_after_ctrl_c(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    process, name, _ = owner

    process.send_signal(signal.SIGINT)
    process.wait(30)

    assert traces(name) == []


@pytest.mark.root
@needs_lab
def test_a_killed_lab_leaves_no_process_and_the_next_lab_removes_the_rest(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    process, name, pids = owner

    process.kill()
    process.wait(30)
    for pid in pids:
        wait_gone(pid, timeout=10)
    with Lab():
        eventually_gone(name)


@pytest.mark.root
@needs_lab
def test_a_new_lab_leaves_a_live_one_alone(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    _, name, pids = owner

    with Lab():
        pass

    assert all(any(name in path for path in cgroup_paths(pid)) for pid in pids)


def eventually_gone(name: str) -> None:
    """Another lab, of a test beside this one, may be at the same clearing."""
    deadline = time.monotonic() + 10
    while traces(name) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traces(name) == []


def test_without_root_the_demo_says_in_one_line_what_it_needs() -> None:
    done = demo("import os; os.geteuid = lambda: 1000; ")

    assert done.returncode == 1
    assert re.fullmatch(r"netutil demo: needs root.*\n", done.stderr)
    assert done.stdout == ""


def demo(before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}import sys; from tests.lab.demo import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"COLUMNS": "120"},
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.root
@needs_lab
def test_the_demo_shows_two_answers_and_a_refusal() -> None:
    done = demo()

    assert (done.returncode, done.stderr) == (0, "")
    assert "trading/feed-handler $ netutil" in done.stdout
    assert "telco/upf $ netutil" in done.stdout
    assert "10.1.2.3" in done.stdout
    assert "198.51.100.7" in done.stdout
    assert "not in a pod" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    (name,) = set(re.findall(r"netutil-lab-\d+-\d+-\d+-[0-9a-f]{6}", done.stdout))
    assert traces(name) == []
