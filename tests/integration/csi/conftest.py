"""A host and a driver that the tests of one module share: each test has a pod of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.csi_host import Driver, Host, Kubelet, kubelet_at, running_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mount namespaces")
    with running_host() as host:
        yield host


@pytest.fixture(scope="module")
def driver(host: Host) -> Iterator[Driver]:
    with host.driver() as driver:
        yield driver


@pytest.fixture(scope="module")
def kubelet(host: Host, driver: Driver) -> Iterator[Kubelet]:
    with kubelet_at(host.endpoint) as kubelet:
        yield kubelet
