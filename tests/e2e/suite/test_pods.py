"""Every kind of pod gets the right answers, by the agent as each variant deploys it.

What is right is what the kubelet, runc and the kernel say by other means (`truth`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.deploy import VARIANTS
from tests.e2e.node import Node, wait_for
from tests.e2e.recording import keep_or_compare
from tests.e2e.settings import RESULTS
from tests.e2e.truth import Container, container_of, pod_resources
from tests.e2e.workloads import answer, asking, container, pod

NETWORKS = '[{"name": "e2e", "interface": "eth0", "default": true, "mtu": 1500}]'
_WHOLE = {"cpu": "1", "memory": "64Mi"}
_SMALL = {"cpu": "100m", "memory": "64Mi"}
_UNPRIVILEGED = {
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# The one with CPUs of its own first: the others are then confined to what is left.
PODS = [
    pod("guaranteed", container("app", asking("guaranteed"), requests=_WHOLE, limits=_WHOLE)),
    pod("fractional", container("app", asking("fractional"), requests=_SMALL, limits=_SMALL)),
    pod(
        "burstable",
        container("app", asking("burstable"), requests={"cpu": "100m"}, limits={"cpu": "500m"}),
        annotations={"k8s.v1.cni.cncf.io/network-status": NETWORKS, "example.org/note": "a=b\nc"},
    ),
    pod("best-effort", container("app", asking("best-effort"))),
    pod("host-network", container("app", asking("host-network")), hostNetwork=True),
    pod("two", container("left", asking("left")), container("right", asking("right"))),
    pod(
        "shared",
        container("app", asking("shared-app", "exec sleep 4242")),
        container("side", asking("shared-side")),
        shareProcessNamespace=True,
    ),
    pod(
        "initialised",
        container("app", asking("after-init")),
        initContainers=[container("init", asking("in-init", "exit 0"))],
    ),
    pod("nobody", container("app", asking("nobody"), securityContext=_UNPRIVILEGED)),
    pod(
        "hooked",
        container(
            "app",
            ["sleep", "infinity"],
            lifecycle={"postStart": {"exec": {"command": asking("hooked", "exit 0")}}},
        ),
    ),
]
APPS = [
    (one["metadata"]["name"], each["name"]) for one in PODS for each in one["spec"]["containers"]
]
FIRST_ANSWERS = {
    "guaranteed": ("guaranteed", "app"),
    "fractional": ("fractional", "app"),
    "burstable": ("burstable", "app"),
    "best-effort": ("best-effort", "app"),
    "host-network": ("host-network", "app"),
    "left": ("two", "left"),
    "right": ("two", "right"),
    "shared-app": ("shared", "app"),
    "shared-side": ("shared", "side"),
    "in-init": ("initialised", "init"),
    "after-init": ("initialised", "app"),
    "nobody": ("nobody", "app"),
    "hooked": ("hooked", "app"),
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest, node: Node) -> Iterator[str]:
    """The name of the variant that answers, with all pods running."""
    name: str = request.param
    node.deploy(name)
    for result in FIRST_ANSWERS:
        (RESULTS / result).unlink(missing_ok=True)
    first, *rest = PODS
    names = [one["metadata"]["name"] for one in PODS]
    with contextlib.ExitStack() as stack:
        stack.callback(node.remove, *names)
        node.add(first)
        node.running(names[0])
        node.add(*rest)
        node.running(*names)
        wait_for(lambda: all((RESULTS / one).exists() for one in FIRST_ANSWERS), "all answers")
        yield name


@pytest.fixture(scope="module")
def asked(variant: str) -> dict[Any, tuple[Container, dict[str, Any]]]:
    """Containers that have asked this variant, by their names, with its answers."""
    return {}


@pytest.fixture(params=APPS, ids="/".join)
def app(
    request: pytest.FixtureRequest,
    node: Node,
    asked: dict[Any, tuple[Container, dict[str, Any]]],
) -> Container:
    """Each container of each pod. It asks everything at once, the first time."""
    if request.param not in asked:
        found = container_of(node, *request.param)
        answers: list[dict[str, Any]] = []

        def is_current() -> bool:
            """A pod that is known is answered from a list of up to --pod-refresh seconds."""
            answers.append(found.ask("all"))
            return bool(answers[-1]["pod"]["phase"] == found.pod["status"]["phase"])

        wait_for(is_current, f"an answer of {request.param} by a list of now")
        asked[request.param] = (found, answers[-1])
    return asked[request.param][0]


@pytest.fixture
def response(app: Container, asked: dict[Any, tuple[Container, dict[str, Any]]]) -> dict[str, Any]:
    """The complete answer of the agent to that container."""
    return next(answer for container, answer in asked.values() if container is app)


@pytest.mark.parametrize(("result", "of"), FIRST_ANSWERS.items())
def test_the_first_answer_is_about_the_container_that_asked(
    node: Node, variant: str, result: str, of: tuple[str, str]
) -> None:
    pod_name, name = of
    found = answer(result)
    listed = node.pods()[pod_name]
    assert found["pod"]["uid"] == listed["metadata"]["uid"]
    if result == "hooked" and not found["pod"]["container_name"]:
        # The kubelet reports a container after its postStart hook. Until then the list may have the
        # ID of the static pod's earlier life, beside which no name is inferred.
        errors = {one["part"]: one["reason"] for one in found["errors"]}
        assert errors["resources"] == "CONTAINER_NOT_REPORTED"
        return
    assert found["pod"]["container_name"] == name
    assert found["environment"]["envs"]["WHO"] == name
    statuses = [
        *listed["status"]["containerStatuses"],
        *listed["status"].get("initContainerStatuses", []),
    ]
    assert f"containerd://{found['pod']['container_id']}" in [
        one["containerID"] for one in statuses if one["name"] == name
    ]
    # PodResources does not list init containers that end (kubernetes/kubernetes#126765).
    assert [one["part"] for one in found["errors"]] == ["resources"] * (result == "in-init")


def test_the_pod_is_as_the_kubelet_says(app: Container, response: dict[str, Any]) -> None:
    found, metadata, spec = response["pod"], app.pod["metadata"], app.pod["spec"]
    assert {
        name: found[name] for name in ("namespace", "name", "uid", "labels", "annotations")
    } == {name: metadata[name] for name in ("namespace", "name", "uid", "labels", "annotations")}
    assert (found["container_name"], found["container_id"]) == (app.name, app.id)
    assert found["qos_class"] == app.pod["status"]["qosClass"]
    assert found["node_name"] == spec["nodeName"]
    assert found["phase"] == app.pod["status"]["phase"]
    assert found["host_network"] == spec.get("hostNetwork", False)
    assert found["ips"] == [one["ip"] for one in app.pod["status"].get("podIPs", [])]


def test_the_cpus_are_as_the_cgroup_says(app: Container, response: dict[str, Any]) -> None:
    found = response["cpu"]
    assert found["cpuset"] == app.cgroup("cpuset.cpus")
    assert found["effective_cpus"] == app.cgroup("cpuset.effective_cpus", "cpuset.cpus.effective")
    assert found["affinity"] == app.status("Cpus_allowed_list")
    wanted = app.spec["linux"]["resources"]["cpu"]
    quota = wanted.get("quota", 0)
    assert found["quota_microseconds"] == (quota if quota > 0 else None)
    if found["cgroup_version"] == 1:
        assert found["shares"] == max(wanted["shares"], 2)
    else:
        assert found["weight"] == int(app.cgroup("cpu.weight"))


def test_exclusive_cpus_are_unusable_for_other_containers(
    app: Container, response: dict[str, Any]
) -> None:
    own = "1" if app.pod["metadata"]["name"] == "guaranteed-e2e" else ""
    assert response["cpu"]["exclusive_cpus"] == response["resources"]["exclusive_cpus"] == own
    assert {one["exclusive"] for one in response["cpu"]["cpus"]} == {bool(own)}


def test_devices_are_those_of_the_kubelets_socket(app: Container, response: dict[str, Any]) -> None:
    listed = pod_resources()[app.pod["metadata"]["name"], app.name]
    assert [one["id"] for one in response["resources"]["devices"]] == [
        each for one in listed.devices for each in one.device_ids
    ]
    assert set(response["resources"]["exclusive_cpu_ids"]) <= set(listed.cpu_ids)


def test_the_environment_is_that_of_the_oci_spec(app: Container, response: dict[str, Any]) -> None:
    assert response["environment"]["envs"].items() >= app.environment().items()


def test_interfaces_are_those_of_the_network_namespace(
    app: Container, response: dict[str, Any], variant: str
) -> None:
    name = app.pod["metadata"]["name"]
    found = response["interfaces"]
    if variant == "hardened" and name != "host-network-e2e":  # docs/install.md: no live links
        assert found["link_error"]["reason"] == "NETWORK_NAMESPACE_NOT_READABLE"
        assert [one["link"] for one in found["interfaces"]] == [None]
        return
    assert found["link_error"] is None
    assert found["host_network"] == (name == "host-network-e2e")
    live = {} if found["host_network"] else {one["ifname"]: one for one in app.links()}
    answered = {one["name"]: one["link"] for one in found["interfaces"] if one["link"]}
    assert answered.keys() == live.keys()
    for interface, link in answered.items():
        assert link["mac"] == live[interface]["address"]
        assert link["index"] == live[interface]["ifindex"]
        assert [one["address"] for one in link["addresses"]] == [
            f"{one['local']}/{one['prefixlen']}" for one in live[interface]["addr_info"]
        ]


def test_the_node_shows_what_is_kept_for_tests_without_one(node: Node, variant: str) -> None:
    keep_or_compare(node, [container_of(node, *names) for names in APPS])


def test_networks_are_those_of_the_annotation(node: Node, variant: str) -> None:
    found = container_of(node, "burstable", "app").ask("network")
    assert found["source"] == "network-status"
    (status,) = found["status"]
    assert (status["name"], status["interface"], status["mtu"]) == ("e2e", "eth0", 1500)


def test_a_shared_pid_namespace_gives_answers_about_neighbours(node: Node, variant: str) -> None:
    side = container_of(node, "shared", "side")
    neighbour = inside_pid(container_of(node, "shared", "app").pid)
    done = side.run("netutil", "env", "--pid", str(neighbour), "WHO")
    if variant == "hardened":  # docs/install.md: it refuses more
        assert (done.returncode, done.stdout) == (4, "")
    else:
        assert done.stdout == "app\n"


def test_a_process_gets_no_answer_about_another_containers_pid(node: Node, variant: str) -> None:
    left = container_of(node, "two", "left")
    right = container_of(node, "two", "right")
    done = left.run("netutil", "env", "--pid", str(right.pid), "WHO")
    assert done.returncode in (3, 4), done.stdout + done.stderr
    assert done.stdout == ""


def inside_pid(pid: int) -> int:
    """The number of a process in its own PID namespace."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        (line,) = (one for one in status if one.startswith("NSpid:"))
    return int(line.split()[-1])
