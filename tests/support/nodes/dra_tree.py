"""The kubelet's directory of plugins, as drivers of ResourceClaims write to it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from tests.support.device_metadata import DRIVER

SETTLED_SECONDS = 1.0


class DraTree:
    """Writes files as k8s.io/dynamic-resource-allocation/kubeletplugin does, in place."""

    def __init__(self, kubelet_root: Path) -> None:
        self.kubelet_root = kubelet_root
        self.plugins = kubelet_root / "plugins"
        self.plugins.mkdir(parents=True)

    def path(
        self,
        claim: str = "nic-x7k2p",
        request: str = "vf",
        driver: str = DRIVER,
        namespace: str = "shop",
    ) -> Path:
        directory = self.plugins / driver / "dra-device-metadata" / f"{namespace}_{claim}" / request
        return directory / "metadata.json"

    def write(self, body: bytes, **place: str) -> Path:
        """Write a file and wait until no later change can have the same time."""
        path = self.write_now(body, **place)
        settle(path)
        return path

    def write_now(self, body: bytes, **place: str) -> Path:
        path = self.path(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return path

    def remove_driver(self, driver: str = DRIVER) -> None:
        shutil.rmtree(self.plugins / driver)


def settle(path: Path) -> None:
    """Wait until a file's last change was 60 ms ago."""
    while time.time_ns() - os.stat(path).st_ctime_ns < 60_000_000:
        time.sleep(0.005)  # the file's age is what is awaited
