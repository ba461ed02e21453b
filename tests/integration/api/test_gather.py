"""The pod that a read is charged to, and the answers for a container that was just started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.container_cache import ContainerCache, ContainerPlaces
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.kubelet.podresources.model import ContainerResources
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.pods.kept import NOTHING_KEPT
from netutil.agent.pods.model import decode_pod_list

from tests.support.fakes.kubelet import list_json, pod_json
from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.dpdk_node import podresources
from tests.support.nodes.sriov_node import build_sriov_node

NOTHING: Any = None


class WatchedPool(ReadPool):
    """A pool that remembers in whose lane it read."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def run(
        self, pod_key: str, read: Callable[[], Any], what: str, share: Hashable | None = None
    ) -> Any:
        self.keys.append(pod_key)
        return await super().run(pod_key, read, what, share)


async def test_reads_of_the_node_use_the_lane_of_the_asking_pod(tmp_path: Path) -> None:
    reads = WatchedPool()
    callers: Any = SimpleNamespace(reads=reads)
    containers = ContainerCache(lambda _: ContainerPlaces(None, None), 0)
    caller: Any = SimpleNamespace(
        peer=SimpleNamespace(pod_key="one"),
        cgroups=CgroupIdentity("u", "c", ()),
        match=SimpleNamespace(pod=decode_pod_list(list_json(pod_json("web", "u", {})))[0]),
    )
    resources: Any = None
    root = build_sriov_node(tmp_path)
    gathering = Collector(callers, NOTHING, resources, root, containers, NOTHING)
    (cpu,) = await gathering.cpus.topology(caller, "1")
    assert cpu.siblings == (0, 1)
    assert len((await gathering.hugepages.of_process(caller, "")).pools) == 2
    assert set(reads.keys) == {"one"}


async def test_devices_date_from_after_the_containers_start() -> None:
    """Else they might be those of a pod that had its name before."""
    started_by = datetime(2026, 11, 25, 8, 0, 6, tzinfo=UTC)
    asked: list[dict[str, Any]] = []

    async def of_container(*_: str, **bounds: Any) -> None:
        asked.append(bounds)

    metadata = SimpleNamespace(namespace="shop", name="web")
    match = SimpleNamespace(
        pod=SimpleNamespace(metadata=metadata, may_own_cpus=lambda _: True),
        container_name="app",
        started_by=started_by,
        started_at=started_by,
        kept=NOTHING_KEPT,
    )
    caller: Any = SimpleNamespace(
        require_match=lambda found=match: found, cgroups=SimpleNamespace(container_id="c")
    )
    resources: Any = SimpleNamespace(get_container=of_container)
    callers: Any = SimpleNamespace(reads=ReadPool())
    found = Collector(callers, NOTHING, resources, "/", NOTHING, NOTHING)
    await found.devices.resources(caller, "", 5)
    assert asked[0]["not_before"] == started_by


async def test_cpus_that_a_container_shares_are_not_called_its_own() -> None:
    """Kubelets before 1.22 list them as if they were (kubernetes/kubernetes#100211)."""
    asked_at = datetime(2026, 11, 25, tzinfo=UTC)
    listed = ContainerResources((), (0, 1), (), (), asked_at)

    async def of_container(*_: str, **__: Any) -> ContainerResources:
        return listed

    resources: Any = SimpleNamespace(get_container=of_container)
    callers: Any = SimpleNamespace(reads=ReadPool())
    for own, cpu_ids in ((True, (0, 1)), (False, ())):
        pod = SimpleNamespace(
            metadata=SimpleNamespace(namespace="shop", name="web"),
            may_own_cpus={"app": own}.__getitem__,
        )
        match = SimpleNamespace(
            pod=pod,
            container_name="app",
            started_by=asked_at,
            started_at=asked_at,
            kept=NOTHING_KEPT,
        )
        caller: Any = SimpleNamespace(
            require_match=lambda found=match: found, cgroups=SimpleNamespace(container_id="c")
        )
        collector = Collector(callers, NOTHING, resources, "/", NOTHING, NOTHING)
        found = await collector.devices.resources(caller, "", 5)
        assert found.cpu_ids == cpu_ids


@pytest.mark.root
@needs_lab
@pytest.mark.xdist_group("service")
def test_an_unreported_container_is_an_error_until_it_is_listed() -> None:
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        kubelet.pods = [allocated("web", namespace="shop")]
        pod = lab.pod("web", namespace="shop", qos="guaranteed")
        lab.agent(f"--pod-resources={kubelet.path}")
        app = pod.container("app", cpus="0")
        command = [sys.executable, "-m", "netutil.client", "devices", "--timeout", "2"]
        refused = app.run(command)
        assert refused.returncode == 5
        message = f"The calling process is in container {app.id[:12]} of pod shop/web, which the"
        assert message in refused.stderr.decode()
        lab.write_pod_list()
        assert netutil(app, "cpu", "--topology")["exclusive_cpus"] == "2-3"
