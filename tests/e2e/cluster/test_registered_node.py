"""The cluster that was made on this machine is a real one."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

import pytest

from tests.e2e.cluster.kubectl import Cluster
from tests.e2e.namespaces import NODE_ADDRESS
from tests.e2e.node import NODE_NAME
from tests.e2e.settings import KUBELET_PORT


def test_the_node_registered_itself_and_is_ready(cluster: Cluster) -> None:
    cluster.run("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=60s")
    node = cluster.run("get", "node", NODE_NAME, "--output", "jsonpath={.status.nodeInfo}")
    assert "containerd" in node


def test_the_scheduler_placed_the_agent(cluster: Cluster) -> None:
    events = cluster.run(
        *("-n", "netutil", "get", "events", "--field-selector=reason=Scheduled"),
        *("--output", "jsonpath={.items[*].message}"),
    )
    assert f"to {NODE_NAME}" in events


@pytest.mark.parametrize("token", ["", "no-such-token"])
def test_the_kubelet_requires_a_token(token: str) -> None:
    context = ssl.create_default_context(cafile="/var/lib/kubelet/pki/kubelet.crt")
    context.check_hostname = False  # it signs its own, for its name only
    request = urllib.request.Request(f"https://{NODE_ADDRESS}:{KUBELET_PORT}/pods")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, context=context, timeout=10)
