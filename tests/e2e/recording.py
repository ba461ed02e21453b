"""Records a real node under tests/recorded/ for the tests that have no node.

`make e2e` compares what it sees with what is kept, identifiers aside. With NETUTIL_RECORD
naming a directory it writes there instead.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.e2e.node import Node
from tests.e2e.truth import Container, pod_resources_body
from tests.support.repository import RECORDINGS

_CHANGING = re.compile(r"[0-9a-f]{64}|(?<=pod)[0-9a-f]{32}|netutil-lab-[0-9a-f-]+|/process_api/\S+")


def seen(node: Node, containers: Iterable[Container]) -> dict[str, Any]:
    """Return the kubelet's answers, and the cgroup file of each container's first process."""
    return {
        "kubelet": json.loads(node.pods_body()),
        "pod_resources": pod_resources_body().hex(),
        "cgroups": [
            {
                "pod": one.pod["metadata"]["name"],
                "pod_uid": one.pod["metadata"]["uid"],
                "container": one.name,
                "container_id": one.id,
                "text": Path(f"/proc/{one.pid}/cgroup").read_text(),
            }
            for one in containers
        ],
    }


def keep_or_compare(node: Node, containers: Iterable[Container]) -> None:
    """Write what is seen, or assert that its cgroup files look as those that are kept."""
    found = seen(node, containers)
    name = f"kubelet-1.20-{node.driver}.json"
    directory = os.environ.get("NETUTIL_RECORD")
    if directory:
        text = json.dumps(found, indent=1, sort_keys=True)
        Path(directory, name).write_text(f"{text}\n", encoding="utf-8")
        return
    kept = json.loads((RECORDINGS / name).read_text(encoding="utf-8"))
    seen_shapes, kept_shapes = _shapes(found), _shapes(kept)
    assert seen_shapes.keys() == kept_shapes.keys()
    for name, shape in seen_shapes.items():
        assert shape == kept_shapes[name], f"{name}: {shape}"


def _shapes(recorded: dict[str, Any]) -> dict[str, str]:
    return {
        f"{one['pod']}/{one['container']}": _CHANGING.sub("*", one["text"])
        for one in recorded["cgroups"]
    }
