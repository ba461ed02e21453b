"""The findings of the doctor on a node that lacks something."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from netutil.agent.admin import checks
from netutil.agent.admin.checks import Check
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.observability.memory import MemoryUse
from netutil.agent.observability.process_use import ProcessUse, own_use
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod, decode_pod_list

from tests.support.device_metadata import DRIVER, both, vf
from tests.support.nodes.dra_tree import DraTree

NESTED = 4026532999
ALL = (1 << 41) - 1
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def without(*bits: int) -> int:
    return ALL & ~sum(1 << bit for bit in bits)


def assert_is(check: Check, outcome: str, *said: str) -> None:
    assert check.outcome == outcome, check
    for text in said:
        assert text in f"{check.found}\n{check.remedy}"
    assert bool(check.remedy) == (outcome != "ok")


def test_processes_without_a_number_mean_that_hostpid_is_missing() -> None:
    assert_is(checks.process_ids(["0", "17", "0"], NESTED), "failed", "2 of 3", "hostPID: true")


def test_pods_show_that_a_node_is_a_container() -> None:
    assert_is(checks.process_ids(["17"], NESTED), "ok", "all 1")
    assert_is(checks.process_ids([], NESTED), "warning", "no pod runs")
    assert_is(checks.process_ids([], 0xEFFFFFFC), "ok")


def test_no_cgroups_are_no_agent() -> None:
    (check,) = checks.cgroups(CgroupTree(), {})
    assert_is(check, "failed", "--host-root")


@pytest.mark.parametrize(
    ("controllers", "outcome"), [("cpuset cpu memory", "ok"), ("cpu memory", "failed")]
)
def test_version_2_needs_the_cpuset_controller(
    tmp_path: Path, controllers: str, outcome: str
) -> None:
    (tmp_path / "cgroup.controllers").write_text(f"{controllers}\n")
    tree = CgroupTree({UNIFIED: Hierarchy(2, str(tmp_path))})
    version, driver = checks.cgroups(tree, {"a": f"/x/cri-containerd-{'a' * 64}.scope"})
    assert_is(version, outcome, "version 2")
    assert_is(driver, "ok", "systemd, 1 container")


def test_version_1_needs_the_cpuset_hierarchy() -> None:
    tree = CgroupTree({"memory": Hierarchy(1, "/m")})
    version, driver = checks.cgroups(tree, {})
    assert_is(version, "failed", "without the cpuset hierarchy: memory")
    assert_is(driver, "warning", "no container of a pod")
    (version, driver) = checks.cgroups(
        CgroupTree({"cpuset": Hierarchy(1, "/c")}), {"a": f"/kubepods/podx/{'a' * 64}"}
    )
    assert_is(version, "ok", "version 1")
    assert_is(driver, "ok", "cgroupfs")


def test_a_host_root_without_sys_fails_the_check(tmp_path: Path) -> None:
    assert_is(checks.host_files(str(tmp_path)), "failed", f"{tmp_path}/sys", "--host-root")


@pytest.mark.parametrize(
    ("bit", "name"),
    [(19, "SYS_PTRACE"), (2, "DAC_READ_SEARCH"), (6, "SETGID"), (7, "SETUID")],
)
def test_a_capability_that_is_needed_is_missed(bit: int, name: str) -> None:
    assert_is(checks.capabilities(without(bit)), "failed", f"CAP_{name}", "securityContext")


def test_the_hardened_variant_is_a_warning() -> None:
    assert_is(checks.capabilities(without(21)), "warning", "as reported only")
    assert_is(checks.capabilities(ALL), "ok")


def test_an_old_kernel_is_a_warning() -> None:
    assert_is(checks.kernel("pidfd_open and start time"), "warning", "Linux 6.5")
    assert_is(checks.kernel("SO_PEERPIDFD"), "ok", os.uname().release)


def test_a_clock_behind_its_containers_is_wrong() -> None:
    assert_is(checks.clock([NOW + timedelta(seconds=90)], NOW), "failed", "90 s behind")


@pytest.mark.parametrize(
    ("synchronised", "outcome"), [(True, "ok"), (None, "ok"), (False, "warning")]
)
def test_a_clock_is_as_good_as_the_kernel_says(
    synchronised: bool | None, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_is_synchronised", lambda: synchronised)
    assert_is(checks.clock([NOW], NOW), outcome)


def test_the_kernel_is_asked_for_the_clock() -> None:
    assert checks._is_synchronised() in (True, False, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the directory is to be root's")
def test_a_socket_stands_with_its_rights_in_a_directory_of_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = str(tmp_path / "net.sock")

    def look() -> Check:
        return checks.socket_file("pods' socket", path, 0o666, others_enter=True)

    assert_is(look(), "failed", "No such file")
    Path(path).touch()
    assert_is(look(), "failed", "is no socket")
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        Path(path).chmod(0o600)
        assert_is(look(), "failed", "mode 0600 instead of 0666")
        Path(path).chmod(0o666)
        assert_is(look(), "ok", path)
        tmp_path.chmod(0o777)
        assert_is(look(), "failed", "others may write")
        tmp_path.chmod(0o700)
        assert_is(look(), "failed", "only root may enter")


def test_a_sockets_directory_holds_the_socket_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    path = str(folder / "net.sock")

    def look() -> Check:
        return checks.socket_directory("socket directory", path)

    assert_is(look(), "failed", "No such file")
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as starting:
        ours.bind(path)
        starting.bind(f"{path}.0123abcd")  # an agent that starts just now
        assert_is(look(), "ok", "nothing but the socket")
    for name in ("x", "y", "z", "net.sock.d"):
        (folder / name).mkdir()
    assert_is(look(), "warning", "did not make (4): net.sock.d, x, y, …", "manifests/policies")
    (folder / "net.sock.89abcdef").mkdir()
    assert_is(look(), "warning", f"moved aside from {path} and not removed: net.sock.89abcdef")
    for name in ("x", "y", "z", "net.sock.d", "net.sock.89abcdef"):
        (folder / name).rmdir()
    (tmp_path / "link").symlink_to(folder)
    path = str(tmp_path / "link" / "net.sock")
    assert_is(look(), "warning", "is a symbolic link")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file system of its own")
def test_a_file_system_without_free_inodes_is_a_warning() -> None:
    look = (
        "from netutil.agent.admin.checks import socket_directory as look; import os;"
        "[os.mkdir(f'/mnt/{one}') for one in range(98)];"
        "print(look('socket directory', '/mnt/net.sock'))"
    )
    script = f'mount -t tmpfs -o nr_inodes=100 none /mnt && exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, look],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "outcome='warning', found='1 of 100 inodes of /mnt are free'" in done.stdout, done.stderr


def test_low_limits_are_found_before_they_are_reached(tmp_path: Path) -> None:
    assert_is(checks.descriptors(1), "ok")
    assert_is(checks.descriptors(2**40), "warning", "RLIMIT_NOFILE")
    assert_is(checks.connections(90, 100), "warning", "90 of 100", "node top")
    assert_is(checks.connections(10, 100), "ok")
    limit = tmp_path / "max_user_watches"
    limit.write_text("100\n")
    assert_is(checks.file_watches(str(limit)), "warning", "sysctl")
    limit.write_text("8192\n")
    assert_is(checks.file_watches(str(limit)), "ok")


def pods_of(*items: object) -> tuple[tuple[Pod, ...], Flaws]:
    flaws = Flaws()
    body = json.dumps({"items": [{"metadata": {"name": "a", "uid": "u"}}, *items]}).encode()
    return decode_pod_list(body, flaws), flaws


def test_a_pod_list_that_is_understood_is_fine() -> None:
    assert_is(checks.pod_fields(*pods_of()), "ok", "core/v1")


def test_an_unknown_value_of_a_pod_is_a_warning_that_names_it() -> None:
    odd = {"metadata": {"name": "web", "uid": "v"}, "status": {"phase": None, "podIP": 7}}
    check = checks.pod_fields(*pods_of(odd))
    assert_is(check, "warning", "2 fields of 1 pod are unknown", "the agent's log")
    assert "the first default/web status.phase" in check.found


def test_an_entry_that_was_left_out_is_a_warning_with_its_reason() -> None:
    check = checks.pod_fields(*pods_of({"metadata": {"name": "web"}}))
    assert_is(check, "warning", "left out 1 time since the start", "core/v1")
    assert check.found.endswith("item 1 ('default/web'): $.metadata.uid is missing")


USE = ProcessUse(7, 40 * 2**20, 36.0, 9, 80, (NOW - timedelta(hours=1)).timestamp())


@pytest.mark.parametrize(
    ("used", "outcome", "said"),
    [
        (71, "ok", "its cgroup uses 71% of its limit"),
        (73, "warning", "beyond 90 % new connections are rejected"),
        (90, "warning", "uses 90%"),
        (91, "failed", "new connections are rejected"),
    ],
)
def test_memory_is_compared_with_its_high_watermark(used: int, outcome: str, said: str) -> None:
    assert_is(checks.memory(MemoryUse(used, 100), USE, 90, NOW), outcome, said)


def test_the_agents_usage_is_reported() -> None:
    check = checks.memory(MemoryUse(), USE, 90, NOW)
    said = "40.0 MiB resident, 1.0% of a CPU since the start 1:00:00 ago, 9 threads"
    assert_is(check, "ok", said, "no limit")


def test_the_agents_usage_is_read() -> None:
    use, real = own_use(), psutil.Process()
    assert (use.pid, use.threads) == (os.getpid(), real.num_threads())
    assert use.started_seconds == real.create_time()
    assert abs(use.rss_bytes - real.memory_info().rss) < 2**20
    assert use.descriptors == real.num_fds()
    assert use.cpu_seconds <= round(sum(real.cpu_times()[:2]), 2)


class TestResourceClaims:
    def tree(self, path: Path) -> DraTree:
        return DraTree(path / "kubelet")

    def check(self, tree: DraTree, *waiting: str) -> Check:
        return checks.resource_claims(DeviceMetadataFiles(str(tree.plugins)), waiting)

    def test_drivers_that_write_metadata_are_named(self, tmp_path: Path) -> None:
        tree = self.tree(tmp_path)
        tree.write_now(both(vf()))
        assert_is(self.check(tree, "shop/web"), "ok", DRIVER, str(tree.plugins))

    def test_pods_with_claims_and_no_driver_are_a_warning(self, tmp_path: Path) -> None:
        tree = self.tree(tmp_path)
        assert_is(self.check(tree, "shop/web"), "warning", "1 pod with claims: shop/web")
        assert_is(self.check(tree), "ok", "of no driver")

    def test_a_missing_mount_matters_to_pods_with_claims(self, tmp_path: Path) -> None:
        tree = self.tree(tmp_path)
        tree.plugins.rmdir()
        assert_is(self.check(tree, "shop/web"), "warning", "could not be read", "--kubelet-root")
        assert_is(self.check(tree), "ok", "No pod refers to claims")

    def test_another_source_is_as_good(self, tmp_path: Path) -> None:
        files = DeviceMetadataFiles(str(self.tree(tmp_path).plugins))
        found = checks.resource_claims(files, ["shop/web"], has_other_source=True)
        assert_is(found, "ok", "of no driver")

    def test_a_claim_source_that_is_off_is_reported(self) -> None:
        assert_is(checks.resource_claims(None, ["shop/web"]), "ok", "--resource-claims=off")
