"""The settings select a source of pods, and each source requires its flags."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest
from netutil.agent.config import parse
from netutil.agent.kubelet.podsapi.source import PodsApiSource
from netutil.agent.pod_source import create_claims_api, create_source
from netutil.agent.pods.sources.apiserver import ApiServerSource
from netutil.agent.pods.sources.file import FileSource
from netutil.agent.pods.sources.kubelet import KubeletSource

IN_CLUSTER = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "NODE_NAME": "node-1.example.com",
}


def test_the_kubelet_is_the_default() -> None:
    assert isinstance(create_source(parse([], IN_CLUSTER)), KubeletSource)


def test_a_file_is_named_by_its_path() -> None:
    source = create_source(parse(["--pod-source", "file:/pods.json"], {}))
    assert isinstance(source, FileSource)
    assert source.describe() == "/pods.json"


class TestApiServer:
    def test_everything_comes_from_where_the_agent_runs(self) -> None:
        source = create_source(parse(["--pod-source", "apiserver"], IN_CLUSTER))
        assert isinstance(source, ApiServerSource)
        assert source.describe() == "https://10.96.0.1:443/api/v1/pods"
        assert source._selected() == {"fieldSelector": "spec.nodeName=node-1.example.com"}

    def test_an_ipv6_address_is_put_in_brackets(self) -> None:
        environment = {"KUBERNETES_SERVICE_HOST": "fd00::1"}
        assert parse([], environment).pod_source.apiserver.url == "https://[fd00::1]:443"

    @pytest.mark.parametrize(
        ("missing", "named"),
        [
            ("KUBERNETES_SERVICE_HOST", "--apiserver-url"),
            ("NODE_NAME", "--node-name"),
        ],
    )
    def test_a_missing_value_stops_the_start(
        self, missing: str, named: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment = {name: value for name, value in IN_CLUSTER.items() if name != missing}
        with pytest.raises(SystemExit) as ended:
            parse(["--pod-source", "apiserver"], environment)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert named in said and missing in said

    @pytest.mark.parametrize("missing", ["KUBERNETES_SERVICE_HOST", "NODE_NAME"])
    def test_claims_need_the_same(self, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
        environment = {name: value for name, value in IN_CLUSTER.items() if name != missing}
        with pytest.raises(SystemExit):
            parse(["--resource-claims", "apiserver"], environment)
        said = capsys.readouterr().err
        assert "--resource-claims apiserver needs" in said and missing in said

    def test_claims_and_slices_are_those_of_the_node(self) -> None:
        found = create_claims_api(parse(["--resource-claims", "apiserver"], IN_CLUSTER))
        assert found is not None
        assert found.describe() == "https://10.96.0.1:443/apis/resource.k8s.io/resourceclaims"
        assert create_claims_api(parse([], IN_CLUSTER)) is None

    def test_a_value_of_another_source_may_be_missing(self) -> None:
        assert parse([], {}).host.node_name == ""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--apiserver-url", "http://10.96.0.1"],
            ["--apiserver-url", "https://"],
            ["--apiserver-url", "https://10.96.0.1:port"],
            ["--node-name", "a,metadata.name=b"],
            ["--node-name", "Node"],
            ["--pods-api", "pods-api.sock"],
            ["--pod-source", "api-server"],
            ["--pod-source", "file:pods.json"],
        ],
    )
    def test_a_malformed_value_stops_the_start(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            parse(arguments, {})
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert arguments[0] in said and said.count("\n") == 1


class TestPodsApi:
    def test_it_is_used_by_name_even_before_its_socket_exists(self) -> None:
        source = create_source(
            parse(["--pod-source", "pods-api", "--pods-api", "/no/such.sock"], {})
        )
        assert isinstance(source, PodsApiSource)
        assert source.describe() == "/no/such.sock"

    def test_auto_selects_it_by_its_socket_and_logs_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        path = tmp_path / "pods-api.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        source = create_source(parse(["--pod-source", "auto", "--pods-api", str(path)], {}))
        assert isinstance(source, PodsApiSource)
        assert caplog.messages == [f"agent: --pod-source auto: pods-api, since {path} is there"]

    @pytest.mark.parametrize("stands", ["nothing", "a file"])
    def test_auto_takes_the_kubelet_elsewhere_and_says_why(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, stands: str
    ) -> None:
        caplog.set_level(logging.INFO)
        path = tmp_path / "pods-api.sock"
        if stands == "a file":
            path.touch()
        source = create_source(parse(["--pod-source", "auto", "--pods-api", str(path)], {}))
        assert isinstance(source, KubeletSource)
        missing = "cannot be used: No such file or directory"
        why = "is no socket" if stands == "a file" else missing
        assert caplog.messages == [f"agent: --pod-source auto: kubelet, since {path} {why}"]


class TestKubeletRoot:
    def test_paths_of_the_kubelet_follow_its_root(self) -> None:
        found = parse(["--kubelet-root", "/var/snap/kubelet/"], {})
        assert found.kubelet.pods_api == "/var/snap/kubelet/pods-api/pods-api.sock"
        assert found.kubelet.pod_resources == "/var/snap/kubelet/pod-resources/kubelet.sock"

    def test_the_variable_counts_where_no_flag_is_given(self) -> None:
        variables = {"NETUTIL_KUBELET_ROOT": "/k0s", "NETUTIL_PODS_API": "/x.sock"}
        found = parse([], variables)
        assert found.kubelet.root == "/k0s"
        assert found.kubelet.pod_resources == "/k0s/pod-resources/kubelet.sock"
        assert found.kubelet.pods_api == "/x.sock"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--kubelet-root", "kubelet"],
            ["--resource-claims", "apiserver"],
            ["--resource-claims", ""],
        ],
    )
    def test_an_ill_formed_value_stops_the_start(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            parse(arguments, {})
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert arguments[0] in said and said.count("\n") == 1
