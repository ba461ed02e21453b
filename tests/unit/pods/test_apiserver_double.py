"""The double speaks list and watch as the official client of Kubernetes expects them."""

from __future__ import annotations

import pytest

from tests.support.fakes.apiserver import NODE, ApiServer, pod

kubernetes = pytest.importorskip("kubernetes")


def test_the_official_client_lists_in_pages_and_watches(api: ApiServer, ca_file: str) -> None:
    configuration = kubernetes.client.Configuration(host=api.url, retries=0)
    configuration.ssl_ca_cert = ca_file
    configuration.api_key["BearerToken"] = "Bearer first-token"
    core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    api.paginates = True
    for number in (1, 2):
        made = pod(number)
        made["spec"]["containers"] = []
        made["status"]["containerStatuses"] = None
        api.put(made)
    selector = f"spec.nodeName={NODE}"
    page = core.list_pod_for_all_namespaces(field_selector=selector, limit=1)
    assert [one.metadata.name for one in page.items] == ["pod-1"]
    assert page.metadata._continue == "1"
    api.bookmark()
    events = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(
        core.list_pod_for_all_namespaces,
        field_selector=selector,
        resource_version=page.metadata.resource_version,
        allow_watch_bookmarks=True,
        timeout_seconds=30,
    ):
        events.append((event["type"], event["raw_object"]["metadata"]["resourceVersion"]))
        if event["type"] == "BOOKMARK":
            api.delete(pod(2) | {"spec": {"nodeName": NODE, "containers": []}, "status": {}})
        else:
            watch.stop()
    assert events == [("BOOKMARK", "103"), ("DELETED", "104")]
    core.api_client.rest_client.pool_manager.clear()
