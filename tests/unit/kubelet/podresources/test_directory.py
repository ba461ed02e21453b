"""The kubelet's allocations: shared, recent, never another pod's; failures are reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from netutil.agent.errors import FailedPrecondition, Reason, Unavailable
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.kubelet.podresources.model import ContainerResources

from tests.support.fakes.podresources import KubeletDouble, pod
from tests.support.processes import open_descriptors


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[KubeletDouble]:
    double = KubeletDouble(tmp_path / "kubelet.sock")
    async with double.serving():
        yield double


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[ResourceDirectory]:
    made = ResourceDirectory(str(tmp_path / "kubelet.sock"), 10)
    yield made
    await made.close()


async def ask(
    directory: ResourceDirectory,
    name: str = "web",
    container: str = "app",
    *,
    not_before: datetime | None = None,
    seconds: float = 10,
) -> ContainerResources:
    return await directory.get_container(
        "shop", name, container, not_before=not_before, timeout_seconds=seconds
    )


async def test_the_answer_has_all_resources_of_a_container(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    found = await ask(directory)
    (device,) = found.devices
    assert (device.resource_name, device.device_ids, device.numa_nodes) == (
        "example.com/nic",
        ("0000:3b:02.1",),
        (1,),
    )
    assert found.cpu_ids == (2, 3)
    assert (found.memory[0].memory_type, found.memory[0].size_bytes) == ("hugepages-1Gi", 2**30)
    claim = found.dynamic_resources[0]
    assert (claim.claim_name, claim.claim_resources[0].cdi_devices) == (
        "gpu",
        ("example.com/gpu=0",),
    )


async def test_one_list_serves_all_present_and_imminent_callers(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.hold.clear()
    waiting = [asyncio.create_task(ask(directory)) for _ in range(200)]
    while not kubelet.lists:  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.01)
    waiting[0].cancel()
    kubelet.hold.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, ContainerResources) for one in found) == 199
    await ask(directory)
    assert (kubelet.lists, kubelet.gets) == (1, 0)


async def test_a_pod_that_the_last_list_lacks_is_asked_for_by_itself(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    await ask(directory)
    kubelet.pods.append(pod("new", device="other"))
    found = await ask(directory, "new")
    assert found.devices[0].device_ids == ("other",)
    assert (kubelet.lists, kubelet.gets) == (1, 1)


async def test_a_kubelet_without_get_is_remembered_and_asked_to_list(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.with_get = False
    await ask(directory)
    for number in (1, 2):
        kubelet.pods.append(pod(f"new-{number}"))
        await ask(directory, f"new-{number}")
    assert (kubelet.lists, kubelet.gets) == (3, 1)


@pytest.mark.parametrize("with_get", [True, False])
async def test_a_recreated_pod_gets_no_device_of_its_predecessor(
    with_get: bool, kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.with_get = with_get
    await ask(directory)
    kubelet.pods = [pod(device="of-the-new-one")]
    found = await ask(directory, not_before=datetime.now(UTC))
    assert found.devices[0].device_ids == ("of-the-new-one",)


async def test_two_pods_of_one_name_are_ambiguous(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.pods.append(pod(device="other"))
    with pytest.raises(FailedPrecondition) as refused:
        await ask(directory)
    assert refused.value.reason is Reason.POD_RESOURCES_AMBIGUOUS


@pytest.mark.parametrize(("name", "container"), [("web", "debugger"), ("other", "app")])
async def test_a_container_that_the_kubelet_does_not_list_is_an_error(
    name: str, container: str, kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await ask(directory, name, container)
    assert refused.value.reason is Reason.CONTAINER_WITHOUT_RESOURCES
    assert container in refused.value.message


async def test_unknown_containers_cannot_make_the_kubelet_busy(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.with_get = False
    await ask(directory)
    outcomes = await asyncio.gather(
        *(ask(directory, f"other-{n}") for n in range(100)), return_exceptions=True
    )
    assert all(isinstance(one, FailedPrecondition) for one in outcomes)
    assert kubelet.lists <= 3
    assert kubelet.gets <= 20


async def test_a_missing_socket_is_reported_and_found_when_it_comes(tmp_path: Path) -> None:
    directory = ResourceDirectory(str(tmp_path / "kubelet.sock"), 10)
    with pytest.raises(Unavailable) as refused:
        await ask(directory)
    assert refused.value.reason is Reason.POD_RESOURCES_UNAVAILABLE
    assert "does not exist" in refused.value.message
    double = KubeletDouble(tmp_path / "kubelet.sock")
    async with double.serving():
        await asyncio.sleep(refused.value.retry_after_seconds + 0.1)
        assert await ask(directory)
    await directory.close()


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "unknown method", Reason.POD_RESOURCES_UNIMPLEMENTED),
        (grpc.StatusCode.UNKNOWN, "List method disabled", Reason.POD_RESOURCES_UNIMPLEMENTED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit", None),
        (grpc.StatusCode.INTERNAL, "oops", None),
    ],
)
async def test_a_refusal_of_the_kubelet_is_a_sentence_and_retried(
    code: grpc.StatusCode,
    said: str,
    reason: Reason | None,
    kubelet: KubeletDouble,
    directory: ResourceDirectory,
) -> None:
    kubelet.failure = (code, said)
    with pytest.raises(Unavailable) as refused:
        await ask(directory)
    assert refused.value.reason is (reason or Reason.POD_RESOURCES_UNAVAILABLE)
    assert said in refused.value.message
    lists = kubelet.lists
    with pytest.raises(Unavailable):
        await ask(directory)
    assert kubelet.lists == lists  # not at once again
    kubelet.failure = None
    await asyncio.sleep(refused.value.retry_after_seconds + 0.6)
    assert await ask(directory)


async def test_a_kubelet_that_hangs_is_an_error_within_the_deadline(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.hold.clear()
    with pytest.raises(Unavailable) as refused:
        await ask(directory, seconds=0.2)
    assert "within the time" in refused.value.message
    kubelet.hold.set()
    assert await ask(directory)


async def test_a_restarted_kubelet_is_found_again(tmp_path: Path) -> None:
    directory = ResourceDirectory(str(tmp_path / "kubelet.sock"), 0)
    for number in range(3):
        double = KubeletDouble(tmp_path / "kubelet.sock")
        double.pods = [pod(device=f"device-{number}")]
        async with double.serving():
            found = await eventually(lambda: ask(directory))
            assert found.devices[0].device_ids == (f"device-{number}",)
    await directory.close()


async def eventually(asking: Callable[[], object]) -> ContainerResources:
    async with asyncio.timeout(20):
        while True:
            try:
                found = await asking()  # type: ignore[misc]
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                assert isinstance(found, ContainerResources)
                return found


async def test_ten_thousand_lookups_leave_no_descriptor(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    await ask(directory)
    before = open_descriptors()
    for _ in range(10_000):
        await ask(directory)
    assert open_descriptors() <= before
    assert kubelet.lists <= 2


async def test_unused_answers_are_released(kubelet: KubeletDouble, tmp_path: Path) -> None:
    now = [0.0]
    directory = ResourceDirectory(str(tmp_path / "kubelet.sock"), 10, lambda: now[0])
    await ask(directory)
    now[0] = 20.0
    directory.age()
    assert len(directory) == 1
    now[0] = 20.1
    directory.age()
    assert len(directory) == 0
    assert (await ask(directory)).cpu_ids == (2, 3)
    await directory.close()


WEB = ("shop", "web")


async def test_known_devices_are_those_answered_without_the_kubelet(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    assert directory.known(WEB, "app", None) is None
    found = await ask(directory)
    assert directory.known(WEB, "app", None) is found
    assert directory.known(WEB, "app", datetime.now(UTC)) is None  # started after the list
    assert directory.known(WEB, "debugger", None) is None
    assert directory.known(("shop", "other"), "app", None) is None
    assert (kubelet.lists, kubelet.gets) == (1, 0)


async def test_two_pods_of_one_name_have_unknown_devices(
    kubelet: KubeletDouble, directory: ResourceDirectory
) -> None:
    kubelet.pods.append(pod(device="other"))
    with pytest.raises(FailedPrecondition):
        await ask(directory)
    assert directory.known(WEB, "app", None) is None
    assert directory.held(WEB, "app", None) is None


async def test_a_list_older_than_a_refresh_is_not_used(
    kubelet: KubeletDouble, tmp_path: Path
) -> None:
    now = [100.0]
    directory = ResourceDirectory(str(tmp_path / "kubelet.sock"), 10, lambda: now[0])
    try:
        found = await ask(directory)
        now[0] += 10
        assert directory.known(WEB, "app", None) is found
        now[0] += 0.1
        assert directory.known(WEB, "app", None) is None
        assert directory.held(WEB, "app", None) is found
        assert directory.held(WEB, "app", datetime.now(UTC)) is None
        assert directory.held(WEB, "debugger", None) is None
    finally:
        await directory.close()
