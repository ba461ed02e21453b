"""Facts derived of a spec: the containers with CPUs of their own, and the only container."""

from __future__ import annotations

import json
from typing import Any

import pytest
from netutil.agent.pods.model import Pod, decode_pod_list


def spec_of(*containers: dict[str, Any], qos: str = "Guaranteed", **spec: Any) -> Pod:
    item = {
        "metadata": {"name": "web", "uid": "1"},
        "spec": {"containers": list(containers), **spec},
        "status": {"qosClass": qos},
    }
    (pod,) = decode_pod_list(json.dumps({"kind": "PodList", "items": [item]}).encode())
    return pod


def asking_for(cpu: object) -> dict[str, Any]:
    return {"name": "app", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}


@pytest.mark.parametrize("cpu", ["1", "2", "2000m", 3, "1e1"])
def test_a_guaranteed_container_of_whole_cpus_may_own_cpus(cpu: object) -> None:
    assert spec_of(asking_for(cpu)).may_own_cpus("app")


@pytest.mark.parametrize("cpu", ["500m", "1500m", "1.5", 0.5, "0", "-1", "many", None, [], {}])
def test_a_container_that_asks_for_parts_of_cpus_shares_them(cpu: object) -> None:
    shares = spec_of(asking_for(cpu)).spec.sharing_cpus
    assert shares == (() if cpu is None else ("app",))


@pytest.mark.parametrize("qos", ["Burstable", "BestEffort", ""])
def test_only_the_class_guaranteed_may_own_cpus(qos: str) -> None:
    assert not spec_of(asking_for("2"), qos=qos).may_own_cpus("app")


def test_a_container_without_a_request_may_own_its_pods_cpus() -> None:
    assert spec_of({"name": "app"}).may_own_cpus("app")


def test_a_limit_replaces_a_missing_request() -> None:
    shared = {"name": "app", "resources": {"limits": {"cpu": "500m"}}}
    assert spec_of(shared).spec.sharing_cpus == ("app",)


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_a_pod_of_one_container_of_any_kind_is_recognized(kind: str) -> None:
    assert spec_of({"name": "app"}).spec.only_container == "app"
    more: dict[str, Any] = {kind: [{"name": "more"}]}
    assert spec_of({"name": "app"}, **more).spec.only_container == ""
    assert spec_of({"name": "app"}, {"name": "more"}).spec.only_container == ""
    assert spec_of().spec.only_container == ""


def test_a_list_cannot_forge_a_derived_value() -> None:
    derived: dict[str, Any] = {"-only": "other", "-sharing": ["app"]}
    forged = spec_of({"name": "app"}, **derived)
    assert (forged.spec.only_container, forged.spec.sharing_cpus) == ("app", ())
