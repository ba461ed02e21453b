"""The cost of one refresh of the pod list, by the number of pods."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from bench import node
from bench.load_generator import LoadGenerator
from bench.rows import Row
from tests.support.fakes import kubelet as kubelet_server
from tests.support.lab import Lab

NUMBERS = (10, 110, 250, 500)
_LOADS = 20


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield a row for each number of pods."""
    for number in NUMBERS:
        yield _refreshes(number, seconds=4.0 if quick else 10.0)


def _refreshes(number: int, seconds: float) -> Row:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        one = node.pod(lab, "upf")
        items = lab.pod_list()["items"]
        items += [_like(items[0]) for _ in range(number - 1)]
        body = kubelet_server.list_json(*items)
        double = kubelet_server.KubeletDouble(kubelet_server.body(body))
        kubelet = stack.enter_context(kubelet_server.serving(double))
        agent = lab.agent(
            f"--kubelet-url={kubelet.url}",
            "--pod-refresh=1",
            "--log-level=error",
            pod_source="kubelet",
        )
        node.wait_for_socket(lab.socket)
        generator = stack.enter_context(LoadGenerator(node.app(one)))
        generator.ask("watch", "Watch", 1)  # so that a caller is interested
        time.sleep(1)
        fetches, before = len(double.requests), node.cpu_seconds(agent.pid)
        time.sleep(seconds)
        used = (node.cpu_seconds(agent.pid) - before) / (len(double.requests) - fetches)
    return Row(
        f"refresh.{number}",
        f"CPU of one refresh of the pod list, {number} pods",
        f"json.loads of its {len(body) // 1024} KiB",
        used / _load_seconds(body),
        note=f"{1000 * used:.1f} ms, one idle Watch included",
    )


def _like(pod: dict[str, Any]) -> dict[str, Any]:
    """Return another pod of the same content, with the parts of a spec that are never read."""
    copy: dict[str, Any] = json.loads(json.dumps(pod))
    copy["metadata"] |= {"uid": str(uuid4()), "name": f"upf-{uuid4()}"}
    for status in copy["status"]["containerStatuses"]:
        status["containerID"] = f"containerd://{uuid4().hex}{uuid4().hex}"
    copy["metadata"]["managedFields"] = [
        {"manager": "kube-controller-manager", "fieldsV1": {f"f:field{n}": {} for n in range(60)}}
    ]
    copy["spec"]["volumes"] = [
        {"name": f"v{n}", "configMap": {"name": f"map-{n}", "defaultMode": 420}} for n in range(6)
    ]
    return copy


def _load_seconds(body: bytes) -> float:
    before = time.process_time()
    for _ in range(_LOADS):
        json.loads(body)
    return (time.process_time() - before) / _LOADS
