"""The CSI driver with a real kubelet and API server: mounts, restarts, failures, clean-up."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import csi
from tests.e2e.cluster.kubectl import AGENTS, NAMESPACE, Cluster, CommandFailed
from tests.e2e.node import wait_for

_MAX_RSS_MIB = 72
_ONE_LEFT = "csi-left"
_REPEATED = "is mounted already"


@pytest.fixture(scope="module", autouse=True)
def driver(cluster: Cluster) -> Iterator[None]:
    """The driver, and at the end the documented order of its removal."""
    csi.install(cluster)
    csi.start(cluster, "csi")
    yield
    cluster.run(*f"delete --namespace {NAMESPACE} pods --all --timeout=170s".split(), seconds=180.0)
    assert csi.mounts_of_all_pods() == []
    csi.remove_driver(cluster)
    csi.delete_driver_object(cluster)


@pytest.fixture
def restored(cluster: Cluster) -> Iterator[None]:
    """The driver is there again after a test that removes it."""
    yield
    csi.install(cluster)


@pytest.fixture
def renewed(cluster: Cluster) -> Iterator[None]:
    """The pods that mount a directory which a test removes are replaced after the test."""
    yield
    csi.delete(cluster, "--all")
    csi.start(cluster, "csi")


class TestMount:
    def test_a_pod_of_an_ordinary_user_calls_the_agent(self, cluster: Cluster) -> None:
        answer = cluster.ask("csi", "whoami")
        assert answer["uid"] == csi.uid(cluster, "csi")
        assert cluster.execute("csi", "id", "-u").strip() == "65534"

    def test_the_volume_is_read_only_in_the_container(self, cluster: Cluster) -> None:
        with pytest.raises(CommandFailed, match="Read-only file system"):
            cluster.execute("csi", "touch", "/etc/netutil/made")

    def test_the_hosts_mount_has_all_restricting_flags(self, cluster: Cluster) -> None:
        (mount,) = csi.mounts(csi.uid(cluster, "csi"))
        assert {"ro", "nosuid", "nodev", "noexec"} <= mount.options and mount.is_shared

    def test_the_log_names_pod_and_volume(self, cluster: Cluster) -> None:
        line = f"pod {NAMESPACE}/csi ({csi.uid(cluster, 'csi')}) volume netutil: mounted"
        assert line in csi.log(cluster)
        assert "the kubelet registered csi.netutil" in csi.log(cluster)

    def test_each_thread_of_the_driver_has_one_capability(self) -> None:
        (pid,) = csi.pids()
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text(encoding="ascii")
            assert "CapEff:\t0000000000200000" in status and "NoNewPrivs:\t1" in status

    def test_the_driver_stays_small(self) -> None:
        (pid,) = csi.pids()
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        sizes = {key: int(size) / 1024 for key, size in re.findall(r"(\w+): +(\d+) kB", text)}
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        print({key: round(sizes[key], 1) for key in ("Rss", "Pss", "Private_Dirty")}, threads)
        assert sizes["Rss"] < _MAX_RSS_MIB

    def test_a_sub_path_makes_nothing_on_the_host(self, cluster: Cluster) -> None:
        before = sorted(os.listdir("/run/netutil"))
        cluster.apply(csi.client_pod(cluster, "csi-sub-path", subPath="made/by/a-pod"))
        csi.wait_for_event(cluster, "csi-sub-path", "failed to create subPath directory")
        assert sorted(os.listdir("/run/netutil")) == before
        csi.delete(cluster, "csi-sub-path")

    def test_forged_pod_info_is_overwritten_by_the_kubelet(self, cluster: Cluster) -> None:
        attributes = {"csi.storage.k8s.io/pod.uid": csi.uid(cluster, "csi")}
        volume = {"volumeAttributes": attributes}
        cluster.apply(csi.client_pod(cluster, "csi-forged", volume))
        cluster.wait("condition=Ready", "pod/csi-forged")
        own = csi.uid(cluster, "csi-forged")
        assert len(csi.mounts(own)) == 1 and cluster.ask("csi-forged", "whoami")["uid"] == own


@pytest.mark.parametrize(
    ("name", "volume", "sentence"),
    [
        (
            "csi-writable",
            {"readOnly": False},
            "volume 'netutil' is not read-only: set readOnly: true in its csi",
        ),
        (
            "csi-file-system",
            {"fsType": "ext4"},
            "fsType 'ext4' is not supported: remove fsType from the volume's csi",
        ),
        (
            "csi-attributes",
            {"volumeAttributes": {"path": "/etc"}},
            "volumeAttributes are not supported: remove 'path' from the volume's csi section",
        ),
    ],
)
def test_a_wrong_volume_is_an_event_with_the_fix(
    cluster: Cluster, name: str, volume: dict[str, Any], sentence: str
) -> None:
    cluster.apply(csi.client_pod(cluster, name, volume))
    message = csi.wait_for_event(cluster, name, sentence)
    assert "code = InvalidArgument desc = " in message
    assert csi.mounts(csi.uid(cluster, name)) == ()


class TestRestarts:
    def test_a_restarted_agent_is_reached_at_once(self, cluster: Cluster) -> None:
        before = cluster.agent()["metadata"]["uid"]
        cluster.run("-n", AGENTS, "delete", "pod", cluster.agent()["metadata"]["name"])
        csi.rolled_out(cluster, "netutil-agent")
        assert cluster.agent()["metadata"]["uid"] != before
        assert cluster.ask("csi", "whoami")["uid"] == csi.uid(cluster, "csi")

    def test_a_restarted_driver_keeps_the_mounts(self, cluster: Cluster) -> None:
        cluster.run("-n", AGENTS, "rollout", "restart", "daemonset/netutil-csi")
        csi.rolled_out(cluster)
        assert cluster.ask("csi", "whoami")["name"] == "csi"
        (uid,) = csi.start(cluster, "csi-after-restart")
        assert len(csi.mounts(uid)) == len(csi.mounts(csi.uid(cluster, "csi"))) == 1
        csi.delete(cluster, "csi-after-restart")
        assert csi.mounts(uid) == () and not os.path.exists(csi.target(uid))

    def test_a_killed_driver_registers_again(self, cluster: Cluster) -> None:
        (pid,) = csi.pids()
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: csi.pids() not in ([], [pid]), "another driver", 60)
        csi.start(cluster, "csi-after-kill")
        print(f"a pod ran {time.monotonic() - start:.1f} s after the kill")
        assert cluster.ask("csi-after-kill", "whoami")["name"] == "csi-after-kill"
        (name,) = (one for one in os.listdir(csi.REGISTRY) if one.startswith(csi.NAME))
        assert re.fullmatch(rf"{csi.NAME}-[0-9a-f]{{8}}-reg\.sock", name)

    def test_restarts_of_the_kubelet_add_no_mount(self, cluster: Cluster) -> None:
        uids = csi.start(cluster, "csi-one", "csi-two", "csi-three")
        targets = csi.targets_of_running_pods(cluster)
        assert {csi.target(uid) for uid in uids} < set(targets)
        assert sorted(csi.mounts_of_all_pods()) == targets
        for _ in range(3):
            known = csi.log(cluster).count(_REPEATED)
            csi.restart_kubelet()
            csi.wait_for_log(cluster, _REPEATED, known + len(targets))
        assert sorted(csi.mounts_of_all_pods()) == targets

    def test_a_rebooted_node_mounts_again(self, cluster: Cluster) -> None:
        (uid,) = csi.start(cluster, "csi-rebooted")
        targets = csi.targets_of_running_pods(cluster)
        assert csi.target(uid) in targets
        csi.reboot()
        csi.wait_until_answered(cluster, "csi-rebooted", 240)
        assert cluster.ask("csi-rebooted", "whoami")["uid"] == uid
        wait_for(lambda: sorted(csi.mounts_of_all_pods()) == targets, "the mounts of all pods", 240)

    def test_a_second_driver_takes_over_without_failure(self, cluster: Cluster) -> None:
        second = csi.daemon_set(cluster, "netutil-csi-next", lambda spec: None)
        cluster.run("apply", "-f", "-", given=json.dumps(second))
        csi.rolled_out(cluster, "netutil-csi-next")
        # A kubelet forgets the first registration, and takes the second one a second later.
        wait_for(
            lambda: "the kubelet registered" in csi.log(cluster, "netutil-csi-next"),
            "the registration of the second driver",
            60,
        )
        csi.start(cluster, "csi-both")
        cluster.run("-n", AGENTS, "delete", "daemonset/netutil-csi", "--cascade=foreground")
        wait_for(lambda: len(csi.pids()) == 1, "the end of the first driver", 60)
        start = time.monotonic()
        csi.start(cluster, "csi-after-handover")
        print(f"a pod ran {time.monotonic() - start:.1f} s after the handover")
        for name in ("csi-both", "csi-after-handover"):
            assert not [one for one in csi.events(cluster, name) if "MountVolume" in one]
        csi.install(cluster)
        cluster.run("-n", AGENTS, "delete", "daemonset/netutil-csi-next", "--cascade=foreground")
        wait_for(lambda: len(csi.pids()) == 1, "the end of the second driver", 60)


class TestLostMounts:
    def test_a_pod_whose_mount_was_lost_ends(self, cluster: Cluster) -> None:
        (uid,) = csi.start(cluster, "csi-lost")
        csi.host("umount", csi.target(uid))
        assert csi.mounts(uid) == ()
        csi.delete(cluster, "csi-lost")
        assert not os.path.exists(csi.target(uid))

    def test_a_pod_with_stacked_mounts_ends(self, cluster: Cluster) -> None:
        (uid,) = csi.start(cluster, "csi-stacked")
        csi.host("mount", "--bind", "/run/netutil", csi.target(uid))
        assert len(csi.mounts(uid)) == 2
        csi.delete(cluster, "csi-stacked")
        assert csi.mounts(uid) == () and not os.path.exists(csi.target(uid))

    @pytest.mark.usefixtures("renewed")
    def test_a_removed_directory_comes_back_for_new_pods(self, cluster: Cluster) -> None:
        csi.start(cluster, "csi-old-directory")
        restarts = csi.restarts(cluster)
        csi.host("rm", "-r", "/run/netutil")
        cluster.apply(csi.client_pod(cluster, "csi-new-directory"))
        cluster.wait("condition=Ready", "pod/csi-new-directory", seconds=240)
        wait_for(lambda: csi.restarts(cluster) > restarts, "a new container of the driver", 60)
        csi.wait_until_answered(cluster, "csi-new-directory", 240)
        # The old directory is empty for ever.
        assert cluster.execute("csi-old-directory", "ls", "/etc/netutil") == ""
        csi.delete(cluster, "csi-old-directory")
        csi.start(cluster, "csi-old-directory")
        csi.wait_until_answered(cluster, "csi-old-directory", 60)


class TestRefused:
    def test_a_driver_without_propagation_says_the_fix(self, cluster: Cluster) -> None:
        def only_from_the_host(spec: dict[str, Any]) -> None:
            for mount in spec["containers"][0]["volumeMounts"]:
                if mount["name"] == "pods":
                    mount["mountPropagation"] = "HostToContainer"

        other = csi.daemon_set(cluster, "netutil-csi-deaf", only_from_the_host)
        cluster.run("apply", "-f", "-", given=json.dumps(other))
        try:
            wait_for(lambda: "Bidirectional" in csi.log(cluster, "netutil-csi-deaf"), "the log", 60)
        finally:
            cluster.run("-n", AGENTS, "delete", "daemonset/netutil-csi-deaf")
        csi.start(cluster, "csi-unharmed")

    def test_the_api_server_wants_it_privileged(self, cluster: Cluster) -> None:
        def unprivileged(spec: dict[str, Any]) -> None:
            spec["containers"][0]["securityContext"]["privileged"] = False

        other = csi.daemon_set(cluster, "netutil-csi-weak", unprivileged)
        done = cluster.attempt("apply", "-f", "-", given=json.dumps(other))
        assert done.returncode != 0
        assert "available only to privileged containers" in done.stderr


@pytest.mark.usefixtures("restored")
class TestRemoved:
    def test_a_missing_csidriver_object_is_an_event(self, cluster: Cluster) -> None:
        csi.delete_driver_object(cluster)
        cluster.apply(csi.client_pod(cluster, "csi-early"))
        csi.wait_for_event(cluster, "csi-early", "no CSIDriver object")
        csi.install(cluster)
        cluster.wait("condition=Ready", "pod/csi-early", seconds=180)

    def test_pods_stay_and_none_starts_without_the_driver(self, cluster: Cluster) -> None:
        (uid,) = csi.start(cluster, "csi-ending")
        csi.remove_driver(cluster)
        assert cluster.ask("csi", "whoami")["name"] == "csi"
        cluster.apply(csi.client_pod(cluster, "csi-new"))
        text = "driver name csi.netutil not found in the list of registered CSI drivers"
        csi.wait_for_event(cluster, "csi-new", text)

        cluster.run("delete", "--namespace", NAMESPACE, "pod/csi-ending", "--wait=false")
        ended = f"wait --namespace {NAMESPACE} --for=delete pod/csi-ending --timeout=8s"
        assert cluster.attempt(*ended.split()).returncode != 0
        assert len(csi.mounts(uid)) == 1

        csi.install(cluster)
        cluster.wait("delete", "pod/csi-ending", seconds=180)
        cluster.wait("condition=Ready", "pod/csi-new", seconds=180)
        assert csi.mounts(uid) == ()

    def test_a_stale_registration_delays_no_driver(self, cluster: Cluster) -> None:
        csi.remove_driver(cluster)
        stale = csi.REGISTRY / f"{csi.NAME}-reg.sock"
        with contextlib.suppress(FileNotFoundError):
            stale.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(stale))
        csi.restart_kubelet()
        time.sleep(20)  # the kubelet's back-off is to grow
        csi.install(cluster)
        start = time.monotonic()
        wait_for(lambda: "the kubelet registered" in csi.log(cluster), "the registration", 60)
        seconds = time.monotonic() - start
        print(f"registered {seconds:.1f} s after the driver's pod ran")
        assert seconds < 10 and not stale.exists()

    def test_a_pod_left_on_the_node_is_rescued_by_hand(self, cluster: Cluster) -> None:
        (uid,) = csi.start(cluster, _ONE_LEFT)
        csi.remove_driver(cluster)
        forced = f"delete --namespace {NAMESPACE} pod/{_ONE_LEFT} --force --grace-period=0"
        cluster.run(*forced.split())
        csi.restart_kubelet()
        csi.install(cluster)
        directory = csi.KUBELET_ROOT / "pods" / uid
        wait_for(lambda: not _runs(uid), "the end of the pod's containers", 120)
        if directory.exists():  # a kubelet of 1.20; a newer one cleans up by itself
            assert len(csi.mounts(uid)) == 1
            volume = Path(csi.target(uid)).parent
            csi.host("umount", csi.target(uid))
            csi.host("rm", "-f", str(volume / "vol_data.json"))
            csi.host("rmdir", csi.target(uid), str(volume))
        wait_for(lambda: not directory.exists(), "the kubelet's clean-up", 120)
        assert csi.mounts(uid) == ()


def _runs(uid: str) -> bool:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if uid in (entry / "cgroup").read_text(encoding="utf-8"):
                return True
    return False
