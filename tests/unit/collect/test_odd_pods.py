"""However odd a pod of the list is, each answer about it can be made, or says why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.collect import amounts
from netutil.agent.collect.pod_networks import ensure_networks_understood, networks_of
from netutil.agent.errors import AgentError
from netutil.agent.messages import convert
from netutil.agent.pods.index import index
from netutil.agent.pods.model import Pod, convert_pod_list, decode_pod_list
from netutil.v1alpha import netutil_pb2 as api

from tests.unit.pods.test_granted import RESIZED
from tests.unit.pods.test_lenient import ODD, WHOLE, paths, with_odd

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE: dict[str, Any] = copy.deepcopy(WHOLE)
BASE["spec"]["resources"] = {"limits": {"cpu": "1", "hugepages-2Mi": "2Mi"}}
BASE["spec"]["initContainers"][0]["restartPolicy"] = "Always"
BASE["status"] |= {"resources": {"limits": {"cpu": "1"}}, "allocatedResources": {"cpu": "1"}}
BASE["status"]["containerStatuses"][0] |= RESIZED["status"]["containerStatuses"][0]


@st.composite
def spoiled(draw: st.DrawFn) -> Any:
    """A pod of which up to four values are odd."""
    item = BASE
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(paths(item))))
        item = with_odd(item, path, draw(st.sampled_from([*ODD, "9" * 5000, -1])))
    return item


def asked_of(pod: Pod) -> tuple[Callable[[], object], ...]:
    return (
        lambda: amounts.container_cpus(pod, "app"),
        lambda: amounts.pod_cpus(pod),
        lambda: amounts.container_hugepages(pod),
        lambda: amounts.pod_hugepages(pod),
        lambda: amounts.pod_resources(pod),
        lambda: amounts.asked_cpus(pod, "app"),
        lambda: amounts.asked_hugepages(pod),
        lambda: ensure_networks_understood(pod),
        lambda: networks_of(pod),
        lambda: pod.may_own_cpus("app"),
    )


@given(spoiled())
def test_every_answer_about_an_odd_pod_is_made_or_explained(item: object) -> None:
    document = {"items": [{"metadata": {"name": "a", "uid": "b"}}, item]}
    pods = decode_pod_list(json.dumps(document).encode())
    assert convert_pod_list(document) == pods
    known = index(pods, NOW)
    for pod in known.pods:
        match = known.find(pod.metadata.uid, None)
        assert match is not None
        message = convert.pod(match.if_only_container(), "")
        assert api.PodResponse.FromString(message.SerializeToString()).name == pod.metadata.name
        for ask in asked_of(pod):
            try:
                ask()
            except AgentError as error:
                assert error.message.encode() and error.read.encode()
