"""The manifests: valid for the versions they are for, in agreement with the agent and the docs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from netutil.agent.settings import SERVICE_ACCOUNT, Settings, parse

from tests.kubectl import find_kubectl, kustomize

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
OVERLAYS = {
    "default": MANIFESTS,
    "hardened": MANIFESTS / "hardened",
    "self-signed-kubelet": MANIFESTS / "examples" / "self-signed-kubelet",
}
# The oldest version that a manifest is for, and newer ones.
VERSIONS = {
    "default": ("1.25", "1.33", "1.37"),
    "hardened": ("1.31", "1.33", "1.37"),
    "self-signed-kubelet": ("1.25", "1.33", "1.37"),
}
# What the kubelet puts into the environment; the two families of addresses.
NODES = (
    {"status.hostIP": "192.0.2.10", "status.podIP": "10.1.0.7", "spec.nodeName": "node-a"},
    {"status.hostIP": "2001:db8::10", "status.podIP": "fd00::7", "spec.nodeName": "node-a"},
)

Manifest = dict[str, Any]


def documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def kustomizations() -> list[Path]:
    return sorted(MANIFESTS.rglob("kustomization.yaml"))


def patches() -> set[Path]:
    return {
        path.parent / patch["path"]
        for path in kustomizations()
        for patch in yaml.safe_load(path.read_text(encoding="utf-8")).get("patches", ())
        if "path" in patch
    }


def plain_files() -> list[Path]:
    """Files of whole objects: no kustomization, no patch."""
    return sorted(set(MANIFESTS.rglob("*.yaml")) - set(kustomizations()) - patches())


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """Per overlay what `kubectl apply -k` would send."""
    kubectl = find_kubectl()
    return {name: documents(kustomize(kubectl, path)) for name, path in OVERLAYS.items()}


def one(objects: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in objects if manifest["kind"] == kind)
    return found


def pod_of(objects: list[Manifest]) -> Manifest:
    spec: Manifest = one(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def agent_of(objects: list[Manifest]) -> Manifest:
    (container,) = pod_of(objects)["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(container: Manifest, node: dict[str, str]) -> Settings:
    """The settings of an agent that is started by this manifest on that node."""
    environment = {
        variable["name"]: node[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in container["env"]
    }
    argv = [
        re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], argument)
        for argument in container["args"]
    ]
    return parse(argv, environment)


def mounts_of(objects: list[Manifest]) -> dict[str, tuple[Manifest, Manifest]]:
    """By path in the container: the mount and its volume."""
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    mounts = agent_of(objects)["volumeMounts"]
    assert {mount["name"] for mount in mounts} == set(volumes)
    return {mount["mountPath"]: (mount, volumes[mount["name"]]) for mount in mounts}


class TestFiles:
    @pytest.mark.parametrize("version", ["1.25", "1.33", "1.37"])
    @pytest.mark.parametrize("path", plain_files(), ids=lambda path: path.name)
    def test_every_object_is_valid(self, path: Path, version: str) -> None:
        objects = documents(path.read_text(encoding="utf-8"))
        assert objects
        for manifest in objects:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version

    def test_an_unknown_field_is_found(self) -> None:
        pod = one(documents((MANIFESTS / "examples/pod.yaml").read_text(encoding="utf-8")), "Pod")
        pod["spec"]["hostPid"] = True
        with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
            kubernetes_validate.validate(pod, "1.33", strict=True)

    def test_every_kustomization_is_built_by_a_test(self) -> None:
        assert {path.parent for path in kustomizations()} == {
            *OVERLAYS.values(),
            MANIFESTS / "base",
        }

    def test_every_file_is_of_use(self) -> None:
        names = {path.relative_to(MANIFESTS).as_posix() for path in plain_files()}
        base = yaml.safe_load((MANIFESTS / "base/kustomization.yaml").read_text(encoding="utf-8"))
        assert names == {f"base/{name}" for name in base["resources"]} | {
            "nodes-proxy.yaml",
            "examples/pod.yaml",
        }


@pytest.mark.parametrize("name", OVERLAYS)
class TestEveryVariant:
    def test_is_valid(self, rendered: dict[str, list[Manifest]], name: str) -> None:
        for version in VERSIONS[name]:
            for manifest in rendered[name]:
                assert kubernetes_validate.validate(manifest, version, strict=True) == version

    def test_has_just_these_objects(self, rendered: dict[str, list[Manifest]], name: str) -> None:
        assert sorted(manifest["kind"] for manifest in rendered[name]) == [
            "ClusterRole",
            "ClusterRoleBinding",
            "DaemonSet",
            "Namespace",
            "ResourceQuota",
            "ServiceAccount",
        ]

    @pytest.mark.parametrize("node", NODES, ids=lambda node: node["status.podIP"])
    def test_its_flags_are_the_agents(
        self, rendered: dict[str, list[Manifest]], name: str, node: dict[str, str]
    ) -> None:
        settings = settings_of(agent_of(rendered[name]), node)
        assert settings.metrics_address == f"{node['status.podIP']}:9464"
        assert node["status.hostIP"] in settings.kubelet_url
        assert settings.host_root == "/host"

    def test_its_volumes_are_where_the_flags_say(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        settings = settings_of(agent_of(rendered[name]), NODES[0])
        mounts = mounts_of(rendered[name])
        for path in (settings.socket, settings.admin_socket):
            mount, volume = mounts[str(Path(path).parent)]
            assert volume["hostPath"] == {
                "path": mount["mountPath"],
                "type": "DirectoryOrCreate",
            }
            assert not mount.get("readOnly")
        for path, on_host in (
            (f"{settings.host_root}/sys", "/sys"),
            (str(Path(settings.pod_resources).parent), str(Path(settings.pod_resources).parent)),
        ):
            mount, volume = mounts[path]
            assert mount["readOnly"] is True
            assert volume["hostPath"]["path"] == on_host
        writable = {path for path, (mount, _) in mounts.items() if not mount.get("readOnly")}
        assert writable == {"/run/netutil", "/run/netutil-admin", "/tmp"}
        assert "emptyDir" in mounts["/tmp"][1]

    def test_the_agent_has_its_token(self, rendered: dict[str, list[Manifest]], name: str) -> None:
        pod = pod_of(rendered[name])
        assert pod["automountServiceAccountToken"] is True
        assert (
            pod["serviceAccountName"] == one(rendered[name], "ServiceAccount")["metadata"]["name"]
        )
        settings = settings_of(agent_of(rendered[name]), NODES[0])
        assert settings.kubelet_token.startswith(SERVICE_ACCOUNT)

    def test_it_is_on_every_linux_node_and_sees_its_processes(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        pod = pod_of(rendered[name])
        assert pod["hostPID"] is True
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert pod["priorityClassName"] == "system-node-critical"
        quota = one(rendered[name], "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
        assert quota[0]["values"] == ["system-node-critical"]

    def test_two_agents_fit_on_a_node_during_an_update(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        spec = one(rendered[name], "DaemonSet")["spec"]
        assert spec["updateStrategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }
        assert "hostNetwork" not in pod_of(rendered[name])
        assert [set(port) for port in agent_of(rendered[name])["ports"]] == [
            {"name", "containerPort"}
        ]
        assert pod_of(rendered[name])["terminationGracePeriodSeconds"] >= 15

    def test_probes_are_http_on_the_port_of_the_metrics(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        agent = agent_of(rendered[name])
        (port,) = agent["ports"]
        address = settings_of(agent, NODES[0]).metrics_address
        assert address.endswith(f":{port['containerPort']}")
        assert {kind: agent[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")} == {
            "startup": {"path": "/healthz", "port": port["name"]},
            "liveness": {"path": "/healthz", "port": port["name"]},
        }
        assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
        template = one(rendered[name], "DaemonSet")["spec"]["template"]
        annotations = template["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(port["containerPort"])

    def test_it_is_bounded_in_memory_but_not_throttled(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        resources = agent_of(rendered[name])["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert set(resources["limits"]) == {"memory"}

    def test_its_namespace_admits_it(self, rendered: dict[str, list[Manifest]], name: str) -> None:
        labels = one(rendered[name], "Namespace")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
        namespace = one(rendered[name], "Namespace")["metadata"]["name"]
        for kind in ("ServiceAccount", "ResourceQuota", "DaemonSet"):
            assert one(rendered[name], kind)["metadata"]["namespace"] == namespace

    def test_the_selector_finds_the_pods(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        spec = one(rendered[name], "DaemonSet")["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()

    def test_its_one_right_is_to_read_the_kubelets_pods(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        role = one(rendered[name], "ClusterRole")
        assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}]
        assert_bound(rendered[name], one(rendered[name], "ServiceAccount"))

    def test_its_file_system_is_read_only(
        self, rendered: dict[str, list[Manifest]], name: str
    ) -> None:
        context = agent_of(rendered[name])["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsUser"] == 0


def assert_bound(objects: list[Manifest], account: Manifest) -> None:
    binding = one(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == one(objects, "ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [
        {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
    ]


class TestVariants:
    def test_the_default_one_is_privileged(self, rendered: dict[str, list[Manifest]]) -> None:
        assert agent_of(rendered["default"])["securityContext"]["privileged"] is True
        mount, _ = mounts_of(rendered["default"])["/host/sys"]
        assert mount["mountPropagation"] == "HostToContainer"

    def test_the_hardened_one_has_the_documented_capabilities_and_no_more(
        self, rendered: dict[str, list[Manifest]]
    ) -> None:
        context = agent_of(rendered["hardened"])["securityContext"]
        assert "privileged" not in context
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert set(context["capabilities"]["add"]) == documented_capabilities()
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["appArmorProfile"] == {"type": "Unconfined"}

    def test_the_hardened_one_cannot_write_to_what_is_mounted_below_sys(
        self, rendered: dict[str, list[Manifest]]
    ) -> None:
        mount, _ = mounts_of(rendered["hardened"])["/host/sys"]
        assert mount["recursiveReadOnly"] == "IfPossible"
        assert "mountPropagation" not in mount

    def test_the_self_signed_one_trusts_its_own_kubelet_alone(
        self, rendered: dict[str, list[Manifest]]
    ) -> None:
        objects = rendered["self-signed-kubelet"]
        settings = settings_of(agent_of(objects), NODES[0])
        assert settings.kubelet_verify == "ca"
        mount, volume = mounts_of(objects)[settings.kubelet_ca]
        assert mount["readOnly"] is True
        assert volume["hostPath"]["type"] == "File"

    def test_nodes_proxy_is_a_file_of_its_own(self, rendered: dict[str, list[Manifest]]) -> None:
        objects = documents((MANIFESTS / "nodes-proxy.yaml").read_text(encoding="utf-8"))
        role = one(objects, "ClusterRole")
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}
        ]
        assert_bound(objects, one(rendered["default"], "ServiceAccount"))
        names = {manifest["metadata"]["name"] for manifest in rendered["default"]}
        assert role["metadata"]["name"] not in names


class TestExamplePod:
    def test_mounts_the_directory_read_only_and_nothing_else(
        self, rendered: dict[str, list[Manifest]]
    ) -> None:
        pod = one(documents((MANIFESTS / "examples/pod.yaml").read_text(encoding="utf-8")), "Pod")
        (container,) = pod["spec"]["containers"]
        assert container["volumeMounts"] == [
            {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True}
        ]
        directory = Path(settings_of(agent_of(rendered["default"]), NODES[0]).socket).parent
        assert pod["spec"]["volumes"] == [
            {"name": "netutil", "hostPath": {"path": str(directory), "type": "Directory"}}
        ]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["image"] == agent_of(rendered["default"])["image"]
        assert container["command"][0] == "netutil"


def documented_capabilities() -> set[str]:
    """The capabilities of the table in docs/install.md."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `CAP_([A-Z_]+)` \|", text, re.MULTILINE))


# What containerd gives a container that asks for nothing.
RUNTIME_DEFAULT = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
)
WAITING = ("sh", "-c", "echo ready; read forever")
HIDDEN = (
    sys.executable,
    "-c",
    "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0); print('ready', flush=True); input()",
)
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def with_capabilities(*names: str) -> tuple[str, ...]:
    bounding = "".join(f",+{name.lower()}" for name in names)
    return ("setpriv", "--no-new-privs", f"--bounding-set=-all{bounding}", "--inh-caps=-all")


class Subjects:
    """Processes of several kinds, and a program that does to them what the agent does."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    def failed(self, *capabilities: str) -> set[str]:
        """The calls that fail for root with these capabilities and no others."""
        done = subprocess.run(
            [
                *with_capabilities(*capabilities),
                *(sys.executable, "-m", "tests.capabilities", json.dumps(self._given)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subjects]:
    if os.geteuid() != 0:
        pytest.skip("needs root: processes of other users")
    directory = tmp_path_factory.mktemp("run")
    kinds: dict[str, tuple[str, ...]] = {
        "user": (*AS_NOBODY, *WAITING),
        "user's other": (*AS_NOBODY, *WAITING),
        "hidden": (*AS_NOBODY, *HIDDEN),
        "root": (*with_capabilities(*RUNTIME_DEFAULT), *WAITING),
        "root's other": (*with_capabilities(*RUNTIME_DEFAULT), *WAITING),
        "bare": (*with_capabilities(), *WAITING),
        "bare's other": (*with_capabilities(), *WAITING),
        "nested": ("unshare", "--pid", "--fork", "--kill-child", *WAITING),
    }
    with ExitStack() as stack:
        given = {"directory": str(directory), "socket": str(directory / "root.sock")}
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(given["socket"])
        Path(given["socket"]).chmod(0o600)
        listener.listen()
        for name, argv in kinds.items():
            process = stack.enter_context(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            number = process.pid
            if name == "nested":
                children = Path(f"/proc/{number}/task/{number}/children")
                (number,) = map(int, children.read_text(encoding="ascii").split())
            given[name] = str(number)
        yield Subjects(given)


@pytest.mark.root
@pytest.mark.xdist_group("capabilities")
class TestCapabilities:
    def test_the_documented_ones_are_enough(self, subjects: Subjects) -> None:
        assert subjects.failed(*documented_capabilities()) == {"ask as root"}

    @pytest.mark.parametrize(
        ("missing", "calls"),
        [
            (
                "SYS_PTRACE",
                {f"environ of {kind}" for kind in ("user", "hidden", "root")}
                | {f"ns of {kind}" for kind in ("user", "hidden", "root")}
                | {"NS_GET_PARENT", "ask as user"},
            ),
            ("DAC_READ_SEARCH", {"environ of user"}),
            ("SETUID", {"ask as user"}),
            ("SETGID", {"ask as user"}),
        ],
    )
    def test_none_of_them_can_be_left_out(
        self, subjects: Subjects, missing: str, calls: set[str]
    ) -> None:
        capabilities = documented_capabilities() - {missing}
        assert subjects.failed(*capabilities) - {"ask as root"} == calls

    def test_everything_else_needs_no_capability(self, subjects: Subjects) -> None:
        assert subjects.failed() == {
            *(f"environ of {kind}" for kind in ("user", "hidden", "root")),
            *(f"ns of {kind}" for kind in ("user", "hidden", "root")),
            "NS_GET_PARENT",
            "ask as user",
            "ask as root",
        }

    def test_a_caller_with_more_than_the_agent_is_answered_once_the_agent_has_that_too(
        self, subjects: Subjects
    ) -> None:
        assert subjects.failed(*documented_capabilities(), *RUNTIME_DEFAULT) == set()
