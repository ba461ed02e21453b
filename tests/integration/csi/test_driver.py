"""Start, capabilities, handover and end of the driver."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.agent.csi.driver import MAX_REQUEST_BYTES
from netutil.csi.v1 import csi_pb2
from netutil.csi.v1 import pluginregistration_pb2 as registration

from tests.support.csi_host import NAME, SECONDS, Driver, Host, kubelet_at, rejected, running_host

pytestmark = pytest.mark.root
_REGISTRATION = f"{NAME}-reg.sock"


@pytest.fixture
def fresh() -> Iterator[Host]:
    """A host of the test's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mount namespaces")
    with running_host() as host:
        yield host


def statuses(driver: Driver) -> list[dict[str, str]]:
    """/proc/<pid>/task/*/status of each thread."""
    tasks = Path(f"/proc/{driver.process.pid}/task").iterdir()
    texts = [(task / "status").read_text() for task in tasks]
    return [dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE)) for text in texts]


def test_each_thread_keeps_cap_sys_admin_alone(fresh: Host) -> None:
    with fresh.driver() as driver, kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        kubelet.publish(uid, path)
        found = statuses(driver)
    assert len(found) > 4  # the main thread and gRPC's
    for status in found:
        assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0000000000200000"
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def test_the_sockets_are_for_root_alone(fresh: Host) -> None:
    with fresh.driver():
        for path in (fresh.endpoint, fresh.registry / _REGISTRATION):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(fresh.endpoint.parent) == ["csi.sock"]
        assert fresh.registration_sockets() == [_REGISTRATION]


def test_a_made_target_is_not_for_others(fresh: Host) -> None:
    with fresh.driver(), kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        kubelet.publish(uid, path)
        fresh.run("umount", path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o750


def test_the_services_answer_what_the_kubelet_needs(fresh: Host) -> None:
    with fresh.driver():
        with kubelet_at(fresh.registry / _REGISTRATION) as kubelet:
            info = kubelet.registration.GetInfo(registration.InfoRequest())
        assert (info.type, info.name) == ("CSIPlugin", NAME)
        assert (info.endpoint, list(info.supported_versions)) == (str(fresh.endpoint), ["1.0.0"])
        with kubelet_at(fresh.endpoint) as kubelet:
            plugin = kubelet.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
            capabilities = kubelet.identity.GetPluginCapabilities(
                csi_pb2.GetPluginCapabilitiesRequest()
            )
            node = kubelet.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
            abilities = kubelet.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
            probe = kubelet.identity.Probe(csi_pb2.ProbeRequest())
    assert plugin.name == NAME and plugin.vendor_version
    assert node.node_id == "node-1"
    assert capabilities.ByteSize() == abilities.ByteSize() == probe.ByteSize() == 0


@pytest.mark.parametrize(
    "method",
    [
        "csi.v1.Node/NodeStageVolume",
        "csi.v1.Node/NodeGetVolumeStats",
        "csi.v1.Controller/CreateVolume",
        "pluginregistration.v1.Registration/GetInfo",
    ],
)
def test_a_method_that_is_not_served_is_unimplemented(fresh: Host, method: str) -> None:
    with (
        fresh.driver(),
        grpc.insecure_channel(f"unix:{fresh.endpoint}") as channel,
        rejected(grpc.StatusCode.UNIMPLEMENTED, ""),
    ):
        call: Any = channel.unary_unary(f"/{method}")
        call(b"", timeout=SECONDS)


def test_a_request_beyond_the_limit_is_rejected(fresh: Host) -> None:
    with fresh.driver(), kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        with rejected(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
            kubelet.publish(uid, path, volume_context={"x": "x" * MAX_REQUEST_BYTES})


@pytest.mark.parametrize("how", ["--make-private", "--make-slave"])
def test_a_mount_that_is_not_shared_stops_the_start(fresh: Host, how: str) -> None:
    commands = f"mount {how} {fresh.kubelet_root}/pods"
    with fresh.driver(mounts=commands, is_ready=False) as driver:
        code, log = driver.wait()
    assert code == 1 and "mountPropagation: Bidirectional" in log
    assert log.count("\n") == 1 and not fresh.endpoint.exists()
    assert fresh.registration_sockets() == []


def test_a_directory_of_pods_that_is_no_mount_stops_it(fresh: Host) -> None:
    fresh.run("umount", f"{fresh.kubelet_root}/pods")
    with fresh.driver(is_ready=False) as driver:
        code, log = driver.wait()
    assert code == 1 and "is no mount" in log and "Bidirectional" in log


def test_a_source_that_is_no_mount_stops_the_start(fresh: Host) -> None:
    (fresh.directory / "other").mkdir()
    with fresh.driver(f"--source={fresh.directory}/other", is_ready=False) as driver:
        code, log = driver.wait()
    assert code == 1 and "must be a volume mount of the container" in log


def test_a_removed_source_stops_the_start(fresh: Host) -> None:
    commands = f"nsenter --mount=/proc/{fresh.pid}/ns/mnt rmdir {fresh.source}"
    with fresh.driver(mounts=commands, is_ready=False) as driver:
        code, log = driver.wait()
    assert code == 1 and "was removed from the host" in log


def test_a_missing_capability_stops_the_start(fresh: Host) -> None:
    command = ["setpriv", "--bounding-set=-setpcap", *fresh.command()]
    done = subprocess.run(
        fresh.in_container(*command),
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "cannot drop capabilities" in done.stderr and "privileged" in done.stderr


def test_a_missing_directory_of_sockets_stops_the_start(fresh: Host) -> None:
    shutil.rmtree(fresh.endpoint.parent)
    with fresh.driver(is_ready=False) as driver:
        code, log = driver.wait()
    assert code == 1 and "must be a volume mount of the container" in log


def test_a_removed_source_ends_the_driver(fresh: Host) -> None:
    with fresh.driver() as driver, kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        kubelet.publish(uid, path)
        other_uid, other = fresh.target()
        fresh.source.rmdir()
        with rejected(grpc.StatusCode.UNAVAILABLE, "was removed from the host"):
            kubelet.publish(other_uid, other)
        code, _ = driver.wait()
        assert code == 1 and not os.path.lexists(other)
    fresh.source.mkdir()
    with fresh.driver(), kubelet_at(fresh.endpoint) as kubelet:
        kubelet.publish(other_uid, other)
        with rejected(grpc.StatusCode.INTERNAL, "removed from the host since: delete the pod"):
            kubelet.publish(uid, path)
        kubelet.unpublish(path)
    assert not os.path.lexists(path)


def test_an_unpublish_needs_no_source(fresh: Host) -> None:
    with fresh.driver(), kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        kubelet.publish(uid, path)
        fresh.source.rmdir()
        kubelet.unpublish(path)
        assert not os.path.lexists(path)


def test_a_refused_registration_ends_the_driver_after_it(fresh: Host) -> None:
    with fresh.driver() as driver:
        with kubelet_at(fresh.registry / _REGISTRATION) as kubelet:
            kubelet.register(False, "no\nCSIDriver" + "x" * 5000)
        code, log = driver.wait()
    assert code == 1 and "did not register csi.netutil: no\\nCSIDriver" in log
    assert max(map(len, log.splitlines())) < 1200
    assert fresh.registration_sockets() == []


def test_a_registration_is_logged(fresh: Host) -> None:
    with fresh.driver() as driver:
        with kubelet_at(fresh.registry / _REGISTRATION) as kubelet:
            kubelet.register(True)
        driver.wait_for_log("the kubelet registered csi.netutil")


def test_sigterm_ends_the_driver_and_keeps_mounts(fresh: Host) -> None:
    with fresh.driver() as driver, kubelet_at(fresh.endpoint) as kubelet:
        uid, path = fresh.target()
        kubelet.publish(uid, path)
        code, log = driver.end()
    assert code == 0 and "the mounts stay" in log
    assert fresh.registration_sockets() == []
    assert len(fresh.mounts_at(path)) == 1


def test_the_next_driver_knows_the_mounts_of_the_last(fresh: Host) -> None:
    uid, path = fresh.target()
    for ending in (signal.SIGKILL, signal.SIGTERM):
        with fresh.driver() as driver, kubelet_at(fresh.endpoint) as kubelet:
            kubelet.publish(uid, path)
            driver.process.send_signal(ending)
            driver.wait()
        assert len(fresh.mounts_at(path)) == 1
    with fresh.driver(), kubelet_at(fresh.endpoint) as kubelet:
        kubelet.unpublish(path)
    assert not os.path.lexists(path)


def test_a_killed_drivers_registration_gets_a_fresh_name(fresh: Host) -> None:
    with fresh.driver() as driver:
        driver.process.kill()
        driver.wait()
    assert fresh.registration_sockets() == [_REGISTRATION]
    with fresh.driver() as driver:
        (name,) = fresh.registration_sockets()
        assert re.fullmatch(r"csi\.netutil-[0-9a-f]{8}-reg\.sock", name)
        assert fresh.check(driver.process.pid).returncode == 0


def test_a_second_driver_takes_over_without_a_gap(fresh: Host) -> None:
    uid, path = fresh.target()
    with fresh.driver() as first, fresh.driver() as second:
        assert fresh.registration_sockets() == [_REGISTRATION]
        code, log = first.end()
        assert code == 0 and "another instance took over" in log
        assert fresh.registration_sockets() == [_REGISTRATION]
        with kubelet_at(fresh.endpoint) as kubelet:
            kubelet.publish(uid, path)
        assert len(fresh.mounts_at(path)) == 1
        assert fresh.check(second.process.pid).returncode == 0
        second.end()
    assert fresh.registration_sockets() == []


def test_a_source_on_a_file_system_of_its_own_is_mounted() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mount namespaces")
    with running_host(tmpfs=True) as host, host.driver(), kubelet_at(host.endpoint) as kubelet:
        uid, path = host.target()
        host.run("touch", f"{host.source}/net.sock")
        for _ in range(2):
            kubelet.publish(uid, path)
        (mount,) = host.mounts_at(path)
        assert mount.root == "/netutil" and mount.is_read_only
        assert os.listdir(host.seen(path)) == ["net.sock"]
        kubelet.unpublish(path)
        assert not host.mounts_at(path)


def test_two_names_serve_beside_each_other(fresh: Host) -> None:
    other = fresh.kubelet_root / "plugins/csi.other"
    other.mkdir()
    with fresh.driver(), fresh.driver("--name=csi.other"):
        assert fresh.registration_sockets() == [_REGISTRATION, "csi.other-reg.sock"]
        with kubelet_at(other / "csi.sock") as kubelet:
            answer = kubelet.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert answer.name == "csi.other"


class TestCheck:
    def test_it_passes_with_a_running_driver(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            done = fresh.check(driver.process.pid)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_finds_a_removed_registration_socket(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            (fresh.registry / _REGISTRATION).unlink()
            done = fresh.check(driver.process.pid)
        assert done.returncode == 1 and "has no registration socket of csi.netutil" in done.stderr

    def test_it_finds_a_removed_socket(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            fresh.endpoint.unlink()
            done = fresh.check(driver.process.pid)
        assert done.returncode == 1 and "csi.sock" in done.stderr

    def test_it_finds_a_removed_source(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            fresh.source.rmdir()
            done = fresh.check(driver.process.pid)
        assert done.returncode == 1 and "was removed from the host" in done.stderr

    def test_it_finds_a_dead_registration_socket(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            alive = fresh.registry / _REGISTRATION
            with fresh.driver() as second:
                second.process.kill()
                second.wait()
            assert alive.exists()  # of the second, which took it over
            done = fresh.check(driver.process.pid)
        assert done.returncode == 1 and "csi.sock" in done.stderr

    def test_it_stops_after_its_time(self, fresh: Host) -> None:
        with fresh.driver() as driver:
            driver.process.send_signal(signal.SIGSTOP)
            done = fresh.check(driver.process.pid)
            driver.process.send_signal(signal.SIGCONT)
        assert done.returncode == 1 and "Deadline Exceeded" in done.stderr
