"""The errors for a kubelet without a Pods API, one that is not ready, hangs, or errs."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.podsapi.v1alpha1 import pod_pb2, pods_pb2

from tests.support.fakes.podsapi import KubeletDouble, following, pod
from tests.support.waiting import until


class TestFailures:
    async def failure(self, path: Path, **timing: float) -> Unavailable:
        async with following(path, **timing) as directory:
            with pytest.raises(Unavailable) as refused:
                await directory.refresh()
        assert refused.value.reason is Reason.POD_LIST_UNAVAILABLE
        assert refused.value.retry_after_seconds > 0
        return refused.value

    async def test_a_missing_socket_says_what_else_there_is(self, path: Path) -> None:
        failure = await self.failure(path)
        assert "does not exist" in failure.message
        assert "--pod-source kubelet" in failure.advice

    async def test_a_socket_of_a_kubelet_that_has_ended(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        assert "No process listens" in (await self.failure(path)).message

    async def test_a_path_that_is_no_socket(self, path: Path) -> None:
        path.write_text("")  # noqa: ASYNC240 - in a test
        assert "is no socket" in (await self.failure(path)).message

    async def test_a_kubelet_that_does_not_know_its_pods_yet(self, path: Path) -> None:
        kubelet = KubeletDouble(path)
        kubelet.refusal = grpc.StatusCode.FAILED_PRECONDITION, "Kubelet is initializing"
        async with kubelet.serving():
            failure = await self.failure(path)
        assert failure.message == "The kubelet does not know its pods yet: Kubelet is initializing."

    async def test_a_kubelet_that_too_many_ask(self, path: Path) -> None:
        kubelet = KubeletDouble(path)
        kubelet.refusal = grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit"
        async with kubelet.serving():
            assert "rejected by rate limit" in (await self.failure(path)).message

    async def test_a_server_of_something_else(self, path: Path) -> None:
        server = grpc.aio.server()
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        assert "does not serve the Pods API" in (await self.failure(path)).message
        await server.stop(0)

    async def test_a_kubelet_that_never_sends_all(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1))
        kubelet.syncs = False
        async with kubelet.serving():
            failure = await self.failure(path, initial_seconds=0.2)
        assert failure.message == "The kubelet did not send all its pods within 0.2 s."

    async def test_a_listener_that_never_accepts(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as hanging:
            hanging.bind(str(path))
            hanging.listen()
            failure = await self.failure(path, initial_seconds=0.2)
        assert "within 0.2 s" in failure.message

    async def test_an_event_without_a_type_is_of_another_api(self, path: Path) -> None:
        """In drafts ADDED was 0, which is no type: 1 in its place would change all others."""
        kubelet = KubeletDouble(path)
        kubelet.before = [pods_pb2.WatchPodsEvent(pod=pod(1).SerializeToString())]
        async with kubelet.serving():
            failure = await self.failure(path)
        assert "an event has no type" in failure.message
        assert "drafts" in failure.advice

    async def test_a_giant_event_is_refused(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, annotations={"a": "x" * 5 * 2**20}))
        async with kubelet.serving():
            failure = await self.failure(path)
        assert "larger than 4194304 bytes" in failure.message

    async def test_a_stream_that_ends_before_all_pods_is_an_error(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1))
        kubelet.syncs = False
        async with kubelet.serving(), following(path) as directory:
            waiting = asyncio.create_task(directory.refresh())
            await until(lambda: kubelet.watches == 1)
            kubelet.end(grpc.StatusCode.OK, "")
            with pytest.raises(Unavailable, match="before it had sent its pods"):
                await waiting


async def test_too_many_pods_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netutil.agent.pods.store.PodStore.__init__.__defaults__", (2,))
    kubelet = KubeletDouble(path, *(pod(number) for number in range(1, 4)))
    async with kubelet.serving(), following(path) as directory:
        with pytest.raises(Unavailable, match="more than 2 pods"):
            await directory.refresh()


def test_the_numbers_are_those_that_are_published() -> None:
    assert pods_pb2.WatchPodsEvent(
        type=pods_pb2.INITIAL_SYNC_COMPLETE, pod=b"x"
    ).SerializeToString() == (b"\x08\x04\x12\x01x")
    assert pods_pb2.DESCRIPTOR.services_by_name["Pods"].full_name == "v1alpha1.Pods"
    numbers = {
        message.name: {field.name: field.number for field in message.fields}
        for message in pod_pb2.DESCRIPTOR.message_types_by_name.values()
    }
    assert numbers["PodStatus"] == {
        "phase": 1,
        "podIP": 6,
        "containerStatuses": 8,
        "qosClass": 9,
        "initContainerStatuses": 10,
        "podIPs": 12,
        "ephemeralContainerStatuses": 13,
        "resourceClaimStatuses": 15,
        "extendedResourceClaimStatus": 18,
        "allocatedResources": 19,
        "resources": 20,
    }
    assert numbers["ContainerStatus"]["allocatedResources"] == 10
    assert numbers["ContainerStatus"]["resources"] == 11
    assert numbers["PodSpec"]["resources"] == 40
    assert numbers["Container"]["restartPolicy"] == 24
    assert numbers["ContainerStatus"]["allocatedResourcesStatus"] == 14
    assert numbers["PodSpec"]["resourceClaims"] == 39
    assert numbers["ResourceRequirements"]["claims"] == 3
    assert numbers["PodResourceClaim"] == {
        "name": 1,
        "resourceClaimName": 3,
        "resourceClaimTemplateName": 4,
    }
    assert numbers["ResourceHealth"] == {"resourceID": 1, "health": 2, "message": 6}
