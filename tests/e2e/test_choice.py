"""The tests that run on each kind of cluster, and the name of the agent's image there."""

from __future__ import annotations

import pytest

from tests.e2e.__main__ import (
    CLUSTER_TESTS,
    NODE_TESTS,
    node_tests,
    on_the_users_cluster,
    session,
)
from tests.e2e.cluster.overlay import image_fields


@pytest.mark.parametrize(
    ("named", "needs_cluster"),
    [
        (f"{CLUSTER_TESTS}tests/e2e/cluster/test_pods.py::test_a_deployments_pod", True),
        (CLUSTER_TESTS, True),
        (f"{NODE_TESTS}/test_pods.py", False),
    ],
)
def test_a_named_test_runs_in_its_own_place_alone(named: str, needs_cluster: bool) -> None:
    command = session([named], ["-x", named])
    assert ("tests.e2e.control_plane" in command) is needs_cluster
    assert command[-2:] == ["-x", named]


def test_the_tests_of_a_node_are_all_of_them_where_none_is_named() -> None:
    assert node_tests("-x")[-2:] == ["-x", NODE_TESTS]


def test_a_users_cluster_needs_an_image_and_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NETUTIL_IMAGE", raising=False)
    assert on_the_users_cluster([]) == pytest.ExitCode.USAGE_ERROR
    said = capsys.readouterr().err
    assert "kind load docker-image" in said
    assert "NETUTIL_IMAGE=" in said


@pytest.mark.parametrize(
    ("image", "fields"),
    [
        ("netutil", {"newName": "netutil", "newTag": "latest"}),
        ("netutil:0.1.0", {"newName": "netutil", "newTag": "0.1.0"}),
        ("host:5000/netutil", {"newName": "host:5000/netutil", "newTag": "latest"}),
        ("host:5000/netutil:1", {"newName": "host:5000/netutil", "newTag": "1"}),
        ("host/netutil@sha256:ab", {"newName": "host/netutil", "digest": "sha256:ab"}),
    ],
)
def test_an_images_name_in_an_overlay(image: str, fields: dict[str, str]) -> None:
    assert image_fields(image) == fields
