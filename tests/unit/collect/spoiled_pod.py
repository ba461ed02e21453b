"""A pod of which a test spoils something."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from netutil.agent.pods.model import Pod, convert_pod_list, decode_pod_list

MEBIBYTE = 2**20
HUGE = {"cpu": "2", "hugepages-2Mi": "4Mi"}
POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
    "spec": {
        "containers": [
            {"name": "app", "resources": {"requests": HUGE, "limits": HUGE}},
            {"name": "side", "resources": {"limits": HUGE}},
        ],
        "resources": {"limits": {"cpu": "8", "hugepages-2Mi": "64Mi"}},
    },
    "status": {
        "podIP": "10.0.0.1",
        "containerStatuses": [{"name": "app", "state": {"running": {}}}, {"name": "side"}],
    },
}
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> Pod:
    item = copy.deepcopy(POD)
    change(item)
    document = {"items": [item]}
    (pod,) = decode_pod_list(json.dumps(document).encode())
    assert convert_pod_list(document) == (pod,)
    return pod


def container(item: dict[str, Any], number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = item["spec"]["containers"][number]
    return found


def status(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = item["status"]["containerStatuses"][0]
    return found
