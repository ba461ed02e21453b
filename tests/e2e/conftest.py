"""These tests need a node or a cluster: `make e2e` makes them, `make test` leaves them out.

NETUTIL_NODE: this process runs in a node's place. NETUTIL_CLUSTER: the kubeconfig of a cluster.
NETUTIL_PLACE: this process may make places.
"""

from __future__ import annotations

import os

collect_ignore = [
    *(() if os.environ.get("NETUTIL_NODE") else ("suite",)),
    *(() if os.environ.get("NETUTIL_CLUSTER") else ("cluster",)),
    *(() if os.environ.get("NETUTIL_PLACE") else ("test_place.py",)),
]
