"""The first root of the virtual machine: finds this machine's files and hands over to systemd."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")

_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /above /new
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro host /host
mount -t tmpfs -o size=75% tmpfs /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/host,upperdir=/above/upper,workdir=/above/work overlay /new
mkdir -p /new/results /new/usr/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 results /new/results
rm -rf /new/usr/lib/modules
ln -s @MODULES@ /new/usr/lib/modules
cp -r /units/. /new/etc/systemd/system
: >/new/etc/fstab
# systemd would take it for a container, and not read its command line.
rm -f /new/.dockerenv
umount /proc /sys
exec switch_root /new /lib/systemd/systemd --unit=netutil.target
"""
_TARGET = """\
[Unit]
Description=One job
Requires=netutil-job.service
After=netutil-job.service
AllowIsolate=yes
"""
_SERVICE = """\
[Unit]
Description=The job
DefaultDependencies=no
Requires=tmp.mount dev-hugepages.mount
After=tmp.mount dev-hugepages.mount
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/bash /results/job
StandardOutput=append:/results/output
StandardError=append:/results/output
LimitNOFILE=65536
"""
_TMP = """\
[Unit]
DefaultDependencies=no

[Mount]
What=tmpfs
Where=/tmp
Type=tmpfs
Options=mode=1777
"""


def build_initramfs(target: Path, kernel: Path) -> None:
    """Write the archive for a kernel whose package is unpacked at `kernel`."""
    (modules,) = (kernel / "lib/modules").iterdir()
    with tempfile.TemporaryDirectory(prefix="netutil-initramfs-") as name:
        root = Path(name)
        (root / "bin").mkdir()
        (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (root / "bin/busybox").chmod(0o755)
        (root / "init").write_text(_INIT.replace("@MODULES@", str(modules.parent)))
        (root / "init").chmod(0o755)
        units = root / "units"
        units.mkdir()
        (units / "netutil.target").write_text(_TARGET)
        (units / "netutil-job.service").write_text(_SERVICE)
        (units / "tmp.mount").write_text(_TMP)
        _copy_modules(root / "modules", kernel, modules.name)
        listed = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
        with target.open("wb") as archive:
            subprocess.run(
                ["cpio", "--quiet", "--create", "--format=newc"],
                cwd=root,
                input=listed,
                stdout=archive,
                check=True,
            )


def _copy_modules(target: Path, kernel: Path, release: str) -> None:
    """Copy the modules and what they need, with the order to load them in."""
    target.mkdir()
    if not (kernel / f"lib/modules/{release}/modules.dep.bin").exists():
        subprocess.run(["depmod", "--basedir", kernel, release], check=True)
    order: list[str] = []
    for module in MODULES:
        shown = subprocess.run(
            [
                *("modprobe", "--dirname", kernel, "--set-version", release),
                *("--show-depends", module),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in shown.splitlines():
            kind, _, rest = line.partition(" ")
            if kind != "insmod":
                continue
            path = Path(rest.split()[0])
            if path.name not in order:
                (target / path.name).write_bytes(path.read_bytes())
                order.append(path.name)
    (target / "order").write_text("".join(f"{name}\n" for name in order))
