"""containerd's own directory with the images unpacked, as a disk for the virtual machine.

An emulated processor takes minutes to unpack them. containerd does it here, in a place of its own
(`namespaces`): `python -m tests.e2e.vm.disk FILE IMAGE` is the program that runs there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e import images, namespaces, node, settings
from tests.support.cache import keep_newest, kept
from tests.support.packages import ensure_installed

PACKAGES = ("e2fsprogs",)
_SIZE = "2G"  # sparse
_MAX_KEPT = 2
_TIMEOUT_SECONDS = 600.0


def containerd_disk(agent_image: Path) -> Path:
    """Return an ext4 file system for /var/lib/containerd; one made before for the same images."""
    ensure_installed(*PACKAGES, *node.PACKAGES)
    path = kept(
        f"images/containerd-{agent_image.stem}.ext4", lambda fresh: _make(fresh, agent_image)
    )
    keep_newest(path, "containerd-*.ext4", _MAX_KEPT)
    return path


def _make(fresh: Path, agent_image: Path) -> None:
    command = [sys.executable, "-m", "tests.e2e.vm.disk", str(fresh), str(agent_image)]
    code = namespaces.run(command, environment={}, timeout_seconds=_TIMEOUT_SECONDS)
    if code != 0:
        raise RuntimeError(f"{command}: exit code {code}")


def main() -> int:
    """Import the images, and write what containerd then has to a file."""
    fresh, agent_image = map(Path, sys.argv[1:])
    machine = node.Node(
        Path("no-kubelet"),
        driver="cgroupfs",
        cgroup=os.environ["NETUTIL_NODE"],
        exclusive_cpus=False,
    )
    try:
        machine.start_containerd()
        for image in (images.pause_image(), images.caller_image(), agent_image):
            machine.import_image(image)
    finally:
        machine.close()
    command = ["mkfs.ext4", "-q", "-F", "-d", settings.CONTAINERD_ROOT, str(fresh), _SIZE]
    subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
