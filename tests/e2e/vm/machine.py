"""This machine's files under Debian's own kernel: cgroup v2, systemd, no SO_PEERPIDFD.

A virtual machine that has this machine's root file system, read-only over 9p with a
tmpfs above it: whatever is installed here is there, what is written there is gone with it.
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
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.packages import dependency, ensure_installed, unpacked
from tests.e2e.vm.initramfs import build_initramfs

PACKAGES = ("qemu-system-x86", "busybox-static", "cpio", "kmod", "systemd")
_META_PACKAGE = "linux-image-amd64"
_MEMORY_MEBIBYTES = 4096
_SECONDS_TO_END = 30


class MachineFailed(Exception):
    """The machine did not boot, or did not end in time; the text has its console's last lines."""


def prepare() -> Path:
    """Install what is needed and return the kernel's directory."""
    ensure_installed(*PACKAGES)
    return unpacked(dependency(_META_PACKAGE, "linux-image-"))


def run(command: Sequence[str], *, directory: Path, timeout_seconds: float) -> int:
    """Run a command in the machine as root, in a directory of this machine; return its exit code.

    What it prints is printed here while it runs. Raises `MachineFailed`.
    """
    kernel = prepare()
    results = Path(tempfile.mkdtemp(prefix="netutil-vm-"))
    try:
        (results / "job").write_text(_job(command, directory), encoding="utf-8")
        (results / "output").touch()
        build_initramfs(results / "initramfs", kernel)
        return _booted(kernel, results, timeout_seconds)
    finally:
        shutil.rmtree(results)


def _job(command: Sequence[str], directory: Path) -> str:
    path = shlex.quote(os.environ["PATH"])
    return (
        f"export PATH={path} HOME={shlex.quote(str(Path.home()))} LANG=C.UTF-8\n"
        "modprobe tun\n"
        f"cd {shlex.quote(str(directory))} && {shlex.join(command)}\n"
        "echo $? >/results/exit\n"
    )


def _qemu(kernel: Path, results: Path) -> list[str]:
    (image,) = (kernel / "boot").glob("vmlinuz-*")
    shares = (
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        f"local,path={results},mount_tag=results,security_model=none",
    )
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", "2", "-m", str(_MEMORY_MEBIBYTES), "-nographic", "-no-reboot", "-nodefaults"),
        *("-kernel", str(image), "-initrd", str(results / "initramfs")),
        *("-append", "console=ttyS0 panic=-1 quiet systemd.unit=netutil.target"),
        *("-serial", f"file:{results}/console"),
        *(word for share in shares for word in ("-virtfs", share)),
    ]


def _booted(kernel: Path, results: Path, timeout_seconds: float) -> int:
    machine = subprocess.Popen(_qemu(kernel, results), stdin=subprocess.DEVNULL)
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
