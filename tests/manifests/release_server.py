"""An API server as far as `helm --dry-run=server` asks one: versions, kinds and one namespace."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KINDS = {
    "v1": [
        ("namespaces", "Namespace", False),
        ("resourcequotas", "ResourceQuota", True),
        ("serviceaccounts", "ServiceAccount", True),
        ("secrets", "Secret", True),
    ],
    "apps/v1": [("daemonsets", "DaemonSet", True)],
    "rbac.authorization.k8s.io/v1": [
        ("clusterroles", "ClusterRole", False),
        ("clusterrolebindings", "ClusterRoleBinding", False),
    ],
    "storage.k8s.io/v1": [("csidrivers", "CSIDriver", False)],
}


@contextmanager
def serving_releases(version: str, labels: dict[str, str] | None) -> Iterator[str]:
    """Serve a cluster of that version; `labels` are those of the namespace `netutil`, if any.

    Yields the server's URL. What the server does not know is a 404, as the API server answers it.
    """
    answers = _answers(version, labels)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            self._send(200, found) if found else self._send(404, _status(404, "NotFound"))

        def _send(self, code: int, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answers(version: str, labels: dict[str, str] | None) -> dict[str, dict[str, Any]]:
    major, minor, _ = version.split(".", 2)
    groups = [group for group in _KINDS if "/" in group]
    found: dict[str, dict[str, Any]] = {
        "/version": {"major": major, "minor": minor, "gitVersion": f"v{version}"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group.partition("/")[0],
                    "versions": [{"groupVersion": group, "version": "v1"}],
                    "preferredVersion": {"groupVersion": group, "version": "v1"},
                }
                for group in groups
            ],
        },
        "/api/v1/namespaces/netutil/secrets": {
            "kind": "SecretList",
            "apiVersion": "v1",
            "metadata": {},
            "items": [],
        },
    }
    for group, kinds in _KINDS.items():
        path = f"/apis/{group}" if "/" in group else f"/api/{group}"
        found[path] = {
            "kind": "APIResourceList",
            "groupVersion": group,
            "resources": [
                {"name": name, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list"]}
                for name, kind, namespaced in kinds
            ],
        }
    if labels is not None:
        found["/api/v1/namespaces/netutil"] = {
            "kind": "Namespace",
            "apiVersion": "v1",
            "metadata": {"name": "netutil", "labels": labels},
        }
    return found


def _status(code: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": "the server could not find the requested resource",
        "code": code,
    }
