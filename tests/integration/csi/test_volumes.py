"""Mounts and unmounts of a running driver, as the host sees them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import grpc
import pytest
from netutil.agent.csi.volumes import MAX_STACKED_MOUNTS

from tests.support.csi_host import Driver, Host, Kubelet, rejected

pytestmark = pytest.mark.root


def test_the_pods_directory_shows_the_source(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    (host.source / "net.sock").touch()
    kubelet.publish(uid, path)
    assert os.listdir(host.seen(path)) == ["net.sock"]
    (host.source / "net.sock").unlink()
    assert os.listdir(host.seen(path)) == []


def test_the_hosts_mount_has_all_restricting_flags(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    (mount,) = host.mounts_at(path)
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount.options
    with pytest.raises(OSError, match="Read-only file system"):
        host.seen(path).joinpath("made").mkdir()


def test_the_sources_own_mount_stays_writable(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    host.run("mkdir", f"{host.source}/written")
    assert (host.seen(path) / "written").is_dir()
    (host.source / "written").rmdir()


def test_a_repeated_publish_adds_no_mount(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    for _ in range(3):
        kubelet.publish(uid, path)
    assert len(host.mounts_at(path)) == 1


def test_a_name_with_blanks_is_mounted_once(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target("a \t\\040 b#")
    kubelet.publish(uid, path)
    kubelet.publish(uid, path)
    assert len(host.mounts_at(path)) == 1
    kubelet.unpublish(path)
    assert not host.mounts_at(path) and not os.path.exists(path)


def test_simultaneous_calls_make_one_mount(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    threads = [threading.Thread(target=kubelet.publish, args=(uid, path)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(host.mounts_at(path)) == 1


def test_an_unpublish_leaves_no_directory(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    kubelet.unpublish(path)
    assert not host.mounts_at(path) and not os.path.lexists(path)
    assert os.path.isdir(os.path.dirname(path))


def test_a_repeated_unpublish_succeeds(host: Host, kubelet: Kubelet) -> None:
    _, path = host.target()
    kubelet.unpublish(path)
    os.rmdir(os.path.dirname(path))
    kubelet.unpublish(path)


def test_a_lost_mount_is_no_failure(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    host.run("umount", path)
    kubelet.unpublish(path)
    assert not os.path.lexists(path)


def test_a_mount_in_use_is_detached(host: Host, driver: Driver, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    # In the driver's mount namespace: a use in another one is no reason for EBUSY.
    own = f"/proc/{driver.process.pid}/root{path}"
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        kubelet.unpublish(path)
    finally:
        os.close(descriptor)
    assert not host.mounts_at(path) and not os.path.lexists(path)


def test_stacked_mounts_are_all_removed(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    for _ in range(MAX_STACKED_MOUNTS - 1):
        host.run("mount", "--bind", str(host.source), path)
    kubelet.unpublish(path)
    assert not host.mounts_at(path) and not os.path.lexists(path)


def test_more_stacked_mounts_take_another_call(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    kubelet.publish(uid, path)
    for _ in range(MAX_STACKED_MOUNTS):
        host.run("mount", "--bind", str(host.source), path)
    with rejected(grpc.StatusCode.INTERNAL, f"more than {MAX_STACKED_MOUNTS} mounts"):
        kubelet.unpublish(path)
    kubelet.unpublish(path)
    assert not os.path.lexists(path)


def test_another_mount_at_the_target_is_kept(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    os.mkdir(path)
    host.run("mount", "--bind", str(host.registry), path)
    with rejected(grpc.StatusCode.INTERNAL, "has another mount"):
        kubelet.publish(uid, path)
    (mount,) = host.mounts_at(path)
    assert mount.root.endswith("plugins_registry")
    kubelet.unpublish(path)
    assert not os.path.lexists(path) and host.registry.is_dir()


def test_a_writable_mount_of_the_source_is_an_error(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    os.mkdir(path)
    host.run("mount", "--bind", str(host.source), path)
    with rejected(grpc.StatusCode.INTERNAL, "is writable"):
        kubelet.publish(uid, path)


def test_a_link_in_the_parent_is_never_followed(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    parent, elsewhere = Path(path).parent, host.directory / "elsewhere"
    (elsewhere / "mount").mkdir(parents=True)
    parent.rmdir()
    parent.symlink_to(elsewhere)
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "has a symbolic link in it"):
        kubelet.publish(uid, path)
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "has a symbolic link in it"):
        kubelet.publish(uid, path, readonly=False)  # the place is checked before the rest
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "has a symbolic link in it"):
        kubelet.unpublish(path)
    assert (elsewhere / "mount").is_dir() and not host.mounts_at(str(elsewhere / "mount"))


def test_a_link_at_the_target_is_never_followed(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    os.symlink(host.registry, path)
    with rejected(grpc.StatusCode.INTERNAL, "is no directory"):
        kubelet.publish(uid, path)
    with rejected(grpc.StatusCode.INTERNAL, "Not a directory"):
        kubelet.unpublish(path)
    assert not host.mounts_at(str(host.registry)) and os.path.islink(path)


def test_content_below_the_target_is_never_removed(host: Host, kubelet: Kubelet) -> None:
    _, path = host.target()
    os.mkdir(path)
    Path(path, "file").touch()
    with rejected(grpc.StatusCode.INTERNAL, "not mounted and not empty"):
        kubelet.unpublish(path)
    assert Path(path, "file").exists()


def test_a_target_without_parent_is_an_error(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    os.rmdir(os.path.dirname(path))
    with rejected(grpc.StatusCode.INTERNAL, "cannot mount .* No such file or directory"):
        kubelet.publish(uid, path)


def test_a_rejection_is_the_status_with_its_fix(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "set readOnly: true in its csi section"):
        kubelet.publish(uid, path, readonly=False)
    assert not os.path.lexists(path)


def test_a_large_request_gets_the_fix_too(host: Host, kubelet: Kubelet) -> None:
    uid, path = host.target()
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "volumeAttributes are not supported|lacks"):
        kubelet.publish(uid, path, volume_context={"x": "x" * 1_500_000})
