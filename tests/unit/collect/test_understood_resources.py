"""A request of a pod that cannot be parsed is unknown, with a reason: it is never "none"."""

from __future__ import annotations

import pytest
from netutil.agent.collect import amounts
from netutil.agent.errors import Reason

from tests.unit.collect.spoiled_pod import MEBIBYTE, Change, changed, container, status

OF_APP: dict[str, Change] = {
    "requests": lambda item: container(item)["resources"].update(limits=["x"], requests=7),
    "resources": lambda item: container(item).update(resources="x"),
    "name": lambda item: container(item).update(name=None),
    "no name": lambda item: container(item).pop("name"),
    "containers": lambda item: item["spec"].update(containers="x"),
    "container": lambda item: item["spec"].update(containers=[7]),
    "spec": lambda item: item.update(spec=None),
    "granted": lambda item: status(item).update(allocatedResources="x"),
    "status": lambda item: item.update(status=None),
}
OF_POD: dict[str, Change] = {
    "resources": lambda item: item["spec"].update(resources="x"),
    "limits": lambda item: item["spec"]["resources"].update(limits=7),
    "granted": lambda item: item["status"].update(resources=9),
    "spec": lambda item: item.update(spec=None),
}


def test_a_pod_that_is_understood_has_no_error() -> None:
    cpus, pages = (
        amounts.asked_cpus(changed(dict), "app"),
        amounts.asked_hugepages(changed(dict)),
    )
    assert (cpus.error, pages.error) == (None, None)
    assert cpus.container is not None and cpus.container.limit_cores == 2
    assert [one.container_name for one in pages.containers] == ["app", "side"]


@pytest.mark.parametrize("change", OF_APP.values(), ids=OF_APP)
def test_an_unreadable_container_request_is_unknown_not_none(change: Change) -> None:
    pod = changed(change)
    cpus, pages = amounts.asked_cpus(pod, "app"), amounts.asked_hugepages(pod)
    for error in (cpus.error, pages.error):
        assert error is not None
        assert error.reason is Reason.QUANTITY_MALFORMED
        assert "not known" in error.message and "not understood" in error.message
    assert cpus.container is None
    assert not [one for one in pages.containers if one.container_name in ("", "app")]


@pytest.mark.parametrize("change", OF_POD.values(), ids=OF_POD)
def test_an_unreadable_pod_request_is_unknown_not_none(change: Change) -> None:
    pod = changed(change)
    cpus, pages = amounts.asked_cpus(pod, "app"), amounts.asked_hugepages(pod)
    assert cpus.pod is None and cpus.error is not None
    assert pages.pod == () and pages.error is not None


@pytest.mark.parametrize(
    "odd", ["x", {"limits": {"cpu": "many", "hugepages-2Mi": "many"}}], ids=str
)
def test_a_bad_amount_of_the_pod_costs_its_containers_nothing(odd: object) -> None:
    pod = changed(lambda item: item["spec"].update(resources=odd))
    cpus, pages = amounts.asked_cpus(pod, "app"), amounts.asked_hugepages(pod)
    assert cpus.container is not None and cpus.container.limit_cores == 2
    assert cpus.pod is None and cpus.error is not None and "of pod shop/web" in cpus.error.read
    assert [one.container_name for one in pages.containers] == ["app", "side"]
    assert pages.pod == () and pages.error is not None


@pytest.mark.parametrize("odd", ["x", {"limits": {"hugepages-2Mi": "lots"}}], ids=str)
def test_a_bad_amount_of_a_container_costs_another_nothing(odd: object) -> None:
    pod = changed(lambda item: container(item, 1).update(resources=odd))
    pages = amounts.asked_hugepages(pod)
    (app,) = pages.containers
    assert (app.container_name, app.limit_bytes) == ("app", 4 * MEBIBYTE)
    assert [one.limit_bytes for one in pages.pod] == [64 * MEBIBYTE]
    assert pages.error is not None and "side" in pages.error.read + pages.error.message
    cpus = amounts.asked_cpus(pod, "app")
    assert cpus.error is None and cpus.container is not None
