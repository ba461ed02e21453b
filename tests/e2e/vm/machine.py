"""This machine's files under Debian's own kernel: cgroup v2, systemd, no SO_PEERPIDFD.

A virtual machine that has this machine's root file system, read-only over 9p with a
tmpfs above it: the machine has all that is installed here, and loses what it writes when it ends.
systemd is its init, so that cgroup v2 is laid out as on a node. It runs one command
and ends. No KVM is needed: qemu emulates.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.namespaces import NODE_ADDRESS
from tests.e2e.settings import CONTAINERD_ROOT
from tests.e2e.vm.initramfs import build_initramfs
from tests.support.packages import dependency, ensure_installed, unpacked

PACKAGES = ("qemu-system-x86", "busybox-static", "cpio", "kmod", "systemd")
_META_PACKAGE = "linux-image-amd64"
_MEMORY_MEBIBYTES = 6144
_SECONDS_TO_END = 30
_CPU = "max,erms=off,fsrm=off"
_CMDLINE = (
    "console=ttyS0 panic=-1 quiet mitigations=off"
    # Otherwise the kernel takes the emulated counters for unsynchronized and asks a device, the
    # HPET, for the time: a system call took 5.2 us, with the TSC 1.5 us.
    " tsc=reliable"
    # qemu emulates `rep stosb` byte by byte: a page fault took 89 us, with plain stores 31 us.
    " clearcpuid=rep_good,erms,fsrm"
    " systemd.unit=netutil.target"
)
KEPT = "/results/kept"
"""Where the machine's command writes what shall outlive the machine."""


class MachineFailed(Exception):
    """The machine did not boot, or did not end in time; the text has its console's last lines."""


def prepare() -> Path:
    """Install what is needed and return the kernel's directory."""
    ensure_installed(*PACKAGES)
    return unpacked(dependency(_META_PACKAGE, "linux-image-"))


def run(
    command: Sequence[str],
    *,
    directory: Path,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    keep: Path | None = None,
    containerd: Path | None = None,
) -> int:
    """Run a command in the machine as root, in a directory of this machine; return its exit code.

    What it prints is printed here while it runs. What it writes to `KEPT` is copied to `keep`,
    a directory of this machine. `containerd` is a disk for /var/lib/containerd (`disk`); what is
    written to it is lost when the machine ends. Raises `MachineFailed`.
    """
    kernel = prepare()
    results = Path(tempfile.mkdtemp(prefix="netutil-vm-"))
    try:
        (results / "job").write_text(
            _job(command, directory, environment or {}, containerd), encoding="utf-8"
        )
        (results / "output").touch()
        kept = results / Path(KEPT).name
        kept.mkdir()
        build_initramfs(results / "initramfs", kernel)
        code = _booted(_qemu(kernel, results, containerd), results, timeout_seconds)
        if keep is not None:
            shutil.copytree(kept, keep, dirs_exist_ok=True)
        return code
    finally:
        shutil.rmtree(results)


def _job(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    containerd: Path | None,
) -> str:
    # Its snapshots are overlays, which have no other overlay below them.
    mounted = "-t tmpfs tmpfs" if containerd is None else "-t ext4 /dev/vda"
    inherited = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "LANG": "C.UTF-8"}
    variables = shlex.join(f"{k}={v}" for k, v in {**inherited, **environment}.items())
    return (
        f"export {variables}\n"
        "modprobe --all tun overlay veth virtio_blk ext4\n"
        f"mkdir -p {CONTAINERD_ROOT} && mount {mounted} {CONTAINERD_ROOT}\n"
        f"ip link set lo up && ip address add {NODE_ADDRESS}/32 dev lo\n"
        f"cd {shlex.quote(str(directory))} && {shlex.join(command)}\n"
        "echo $? >/results/exit\n"
    )


def _qemu(kernel: Path, results: Path, disk: Path | None) -> list[str]:
    (image,) = (kernel / "boot").glob("vmlinuz-*")
    shares = (
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        f"local,path={results},mount_tag=results,security_model=none",
    )
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", _CPU),
        *("-smp", "2", "-m", str(_MEMORY_MEBIBYTES), "-nographic", "-no-reboot", "-nodefaults"),
        *("-kernel", str(image), "-initrd", str(results / "initramfs")),
        *("-append", _CMDLINE),
        *("-serial", f"file:{results}/console"),
        *(word for share in shares for word in ("-virtfs", share)),
        *(() if disk is None else ("-drive", f"file={disk},format=raw,if=virtio,snapshot=on")),
    ]


def _booted(command: Sequence[str], results: Path, timeout_seconds: float) -> int:
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + timeout_seconds
    try:
        with (results / "output").open("rb") as output:
            while machine.poll() is None and time.monotonic() < deadline:
                _pass_on(output.read())
                time.sleep(0.2)
            _pass_on(output.read())
    finally:
        machine.terminate()
        try:
            machine.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            machine.kill()
            machine.wait()
    try:
        return int((results / "exit").read_text())
    except (FileNotFoundError, ValueError) as error:
        raise MachineFailed(_last_lines(results / "console")) from error


def _pass_on(output: bytes) -> None:
    sys.stdout.write(output.decode(errors="replace"))
    sys.stdout.flush()


def _last_lines(console: Path) -> str:
    lines = console.read_text(errors="replace").splitlines() if console.exists() else []
    return "\n".join(["the machine ended without a result; its console:", *lines[-40:]])
