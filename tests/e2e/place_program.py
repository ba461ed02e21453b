"""A node with one pod in a place of its own, for the tests of the place itself.

`python -m tests.e2e.place_program` makes the place and runs itself in it with the word
`inside`; there it prints "ready" once the pod runs, and waits for the end of its input.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.e2e.images import PAUSE_IMAGE, pause_image
from tests.e2e.kubernetes import kubelet
from tests.e2e.namespaces import run
from tests.e2e.node import running_node
from tests.e2e.settings import RESULTS
from tests.e2e.workloads import container, pod


def inside() -> None:
    """Start the node and its pod, and wait."""
    RESULTS.mkdir()
    Path("/run/netutil").mkdir()
    with running_node(Path(os.environ["NETUTIL_KUBELET"]), pause_image()) as node:
        node.add(pod("web", container("app", ["/pause"], image=PAUSE_IMAGE)))
        node.running("web")
        print("ready", os.environ["NETUTIL_NODE"], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    # A shell without job control starts what is in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1:] == ["inside"]:
        inside()
    else:
        command = [sys.executable, "-m", "tests.e2e.place_program", "inside"]
        environment = {"NETUTIL_KUBELET": str(kubelet())}
        sys.exit(run(command, environment=environment, timeout_seconds=300))
