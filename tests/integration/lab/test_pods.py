"""The lab makes the same objects as a kubelet and a runtime."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.lab import Lab, LaunchFailed
from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.observing import cgroup_paths, namespaces, needs_lab
from tests.support.lab.processes import wait_exited
from tests.support.lab.shapes import Driver, Runtime, container_name, pod_path

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
UID_IN_SLICES = "2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b"


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
def test_run_takes_input_user_and_environment_gives_exit_code(lab: Lab) -> None:
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
def test_a_spawned_process_has_a_host_pid_and_its_handles_life(lab: Lab) -> None:
    container = lab.pod("web").container("app")

    with container.spawn(["cat"], stdin=subprocess.PIPE) as process:
        assert container.cgroup_path in cgroup_paths(process.host_pid)
        assert namespaces(process.host_pid) == namespaces(container.pid)
        process.kill()
        process.wait(5)

    wait_exited(process.host_pid, timeout=5)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.root
@needs_lab
def test_the_socket_directory_is_at_etc_netutil_only_inside(lab: Lab) -> None:
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
    lab.pod("deleted").delete()

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
