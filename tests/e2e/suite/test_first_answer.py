"""The first answer of a container that has just started: within the call, without a second try."""

from __future__ import annotations

import statistics

import pytest

from tests.e2e.first_answer import FirstAnswer, first_answer
from tests.e2e.node import Node, wait_for
from tests.e2e.settings import RESULTS, SLOWNESS
from tests.e2e.workloads import caller, pod

PODS = 60 if SLOWNESS == 1 else 12  # emulated, a pod takes some ten seconds to start


@pytest.mark.parametrize("method", ["GetCPUInfo", "GetPod"])
def test_many_pods_at_once_are_each_answered_about_themselves(node: Node, method: str) -> None:
    node.deploy("default")
    names = [f"first-{number}" for number in range(PODS)]
    for name in names:
        (RESULTS / name).unlink(missing_ok=True)
    node.add(*(pod(name, caller("app", method, result=name)) for name in names))
    try:
        pods = node.running(*names, seconds=300)
        wait_for(lambda: all((RESULTS / name).exists() for name in names), "all answers")
        answers = {name: first_answer(name) for name in names}
        print(distribution(method, list(answers.values())))
        if method == "GetPod":
            for name, found in answers.items():
                (status,) = pods[name]["status"]["containerStatuses"]
                assert found.pod.uid == pods[name]["metadata"]["uid"]
                assert found.pod.name == pods[name]["metadata"]["name"]
                assert found.pod.container_name == "app"
                assert f"containerd://{found.pod.container_id}" == status["containerID"]
        else:
            assert all(found.cpu.cpuset for found in answers.values())
    finally:
        node.remove(*names)


def distribution(method: str, answers: list[FirstAnswer]) -> str:
    """Milliseconds from a container's first instruction to its answer."""
    times = sorted(found.seconds * 1000 for found in answers)
    tenths = statistics.quantiles(times, n=10)
    return (
        f"{method}, {len(times)} pods at once, ms from the first instruction to the answer: "
        f"least {times[0]:.1f}, median {statistics.median(times):.1f}, p90 {tenths[-1]:.1f}, "
        f"most {times[-1]:.1f}"
    )
