"""The policy for namespaces whose pods may mount this one hostPath and no other."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manifests.admission import policy, refusals
from tests.support.manifests.documents import (
    DEFAULT,
    EXAMPLE_POD,
    HARDENED,
    HOSTPATH_POLICY,
    Manifest,
    one,
    pod_of,
    read,
)

PATH, MOUNT, BELOW = "only hostPath here", "readOnly and whole", "nothing else may be mounted"
KINDS = ("containers", "initContainers", "ephemeralContainers")
SPELLINGS = (
    *("/run/netutil/", "/run//netutil", "/run/./netutil", "/run/../run/netutil", "/run/netutil/."),
    *("/run/netutil/net.sock", "/run/netutil/x", "/run", "/", "/var/run/netutil", "/run/netutil2"),
    *("/run/netutil-admin", "run/netutil", "", "/RUN/netutil"),
)


def volume(path: str = "/run/netutil", kind: str | None = "Directory") -> Manifest:
    typed = {} if kind is None else {"type": kind}
    return {"name": "netutil", "hostPath": {"path": path, **typed}}


def mount(**changed: Any) -> Manifest:
    whole = {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True, **changed}
    return {name: value for name, value in whole.items() if value is not None}


def pod(*mounts: Manifest, volumes: list[Manifest] | None = None, **container: Any) -> Manifest:
    asking = {"name": "app", "image": "app", "volumeMounts": list(mounts), **container}
    return {"spec": {"volumes": volumes or [volume()], "containers": [asking]}}


def said(found: Manifest) -> list[str]:
    messages = refusals(found)
    return [kind for kind in (PATH, MOUNT, BELOW) if any(kind in text for text in messages)]


DATA: Manifest = {"name": "data", "emptyDir": {}}
BOTH = [volume(), DATA]


def data(path: str, **more: Any) -> Manifest:
    return {"name": "data", "mountPath": path, **more}


ADMITTED: dict[str, Manifest] = {
    "no volumes": {"spec": {"containers": [{"name": "app", "image": "app"}]}},
    "other volumes": {
        "spec": {"volumes": [DATA], "containers": [{"name": "app", "volumeMounts": [data("/d")]}]}
    },
    "other volumes with a subPath": pod(data("/d", subPath="x"), volumes=BOTH),
    "the documented mount": pod(mount()),
    "not mounted at all": pod(),
    "in a container without mounts": {
        "spec": {"volumes": [volume()], "containers": [{"name": "app", "image": "app"}]}
    },
    "beside others": pod(mount(), data("/d/"), data("/etc/netutil2"), volumes=BOTH),
    "inside another volume": pod(data("/etc"), mount(), volumes=BOTH),
    "no propagation, said": pod(mount(mountPropagation="None")),
    "recursively read-only": pod(mount(recursiveReadOnly="IfPossible")),
    "a usual termination message": pod(mount(), terminationMessagePath="/dev/termination-log"),
    "a working directory elsewhere": pod(mount(), workingDir="/srv/app"),
    "the root as working directory": pod(mount(), workingDir="/"),
    "a path with dots in a name": pod(mount(), data("/data/..hidden/a.b"), volumes=BOTH),
    "devices elsewhere": pod(mount(), volumeDevices=[{"name": "disk", "devicePath": "/dev/xvda"}]),
    "odd paths where it is not mounted": pod(data("/a/../etc/netutil/x"), volumes=BOTH),
    "two volumes of it": pod(
        mount(), mount(name="again"), volumes=[volume(), {**volume(), "name": "again"}]
    ),
}


@pytest.mark.parametrize("name", ADMITTED)
def test_is_admitted(name: str) -> None:
    assert refusals(ADMITTED[name]) == []


@pytest.mark.parametrize("path", SPELLINGS)
def test_every_other_path_and_spelling_is_refused(path: str) -> None:
    assert said(pod(mount(), volumes=[volume(path)])) == [PATH]
    assert said(pod(volumes=[DATA, volume(path)])) == [PATH]


@pytest.mark.parametrize(
    "kind", [None, "", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "BlockDevice"]
)
def test_every_other_type_is_refused(kind: str | None) -> None:
    assert said(pod(mount(), volumes=[volume(kind=kind)])) == [PATH]


def test_one_good_hostpath_excuses_no_other() -> None:
    other = {"name": "other", "hostPath": {"path": "/", "type": "Directory"}}
    assert said(pod(mount(), volumes=[volume(), other])) == [PATH]


WRONG: dict[str, Manifest] = {
    "writable": mount(readOnly=False),
    "readOnly missing": mount(readOnly=None),
    "subPath": mount(subPath="net.sock/x"),
    "subPath of the socket": mount(subPath="net.sock"),
    "empty subPath": mount(subPath=""),
    "subPathExpr": mount(subPathExpr="$(NAME)"),
    "Bidirectional": mount(mountPropagation="Bidirectional"),
    "HostToContainer": mount(mountPropagation="HostToContainer"),
    "another place": mount(mountPath="/netutil"),
    "the place of the runtime's own files": mount(mountPath="/etc"),
    "another spelling of the place": mount(mountPath="/etc/netutil/"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mount_is_refused_in_every_kind_of_container(name: str, kind: str) -> None:
    wrong = {"name": "wrong", "image": "app", "volumeMounts": [WRONG[name]]}
    found = pod(mount())
    found["spec"].setdefault(kind, []).append(wrong)
    assert said(found) == [MOUNT]


def test_a_good_mount_excuses_no_second_one() -> None:
    assert said(pod(mount(), mount(mountPath="/b", subPath="x"))) == [MOUNT]
    assert said(pod(mount(), mount(mountPath="/etc/netutil/x"))) == [MOUNT]


INSIDE = (
    *("/etc/netutil/x", "/etc/netutil/net.sock", "/etc/netutil/", "/etc/netutil", "etc/netutil/x"),
    *("/etc//netutil/x", "/etc/./netutil/x", "/a/../etc/netutil/x", "/etc/netutil/../netutil/x"),
    *("/etc/netutil//x", "//etc/netutil/x", "./etc/netutil/x", "../etc/netutil/x", "/..", "/."),
)


def mounted(path: str) -> Manifest:
    return pod(mount(), data(path), volumes=BOTH)


def reported(path: str) -> Manifest:
    return pod(mount(), terminationMessagePath=path)


def working(path: str) -> Manifest:
    return pod(mount(), workingDir=path)


def device(path: str) -> Manifest:
    return pod(mount(), volumeDevices=[{"name": "disk", "devicePath": path}])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", INSIDE)
@pytest.mark.parametrize("make", [mounted, reported, device, working])
def test_nothing_may_be_made_inside_the_mount(
    make: Callable[[str], Manifest], path: str, kind: str
) -> None:
    found = make(path)
    if kind != "containers":
        found["spec"][kind] = found["spec"]["containers"]
        found["spec"]["containers"] = [{"name": "other", "image": "app"}]
    assert said(found) == [BELOW]


SEGMENTS = st.sampled_from(["etc", "netutil", "x", ".", "..", "", "netutil2", "etc "])


@given(st.lists(SEGMENTS, max_size=8).map("/".join), st.booleans())
def test_no_spelling_of_a_path_inside_is_admitted(path: str, absolute: bool) -> None:
    spelled = f"/{path}" if absolute else path
    # What the kubelet and the runtime make of it: absolute and cleaned, as filepath.Clean does.
    cleaned = posixpath.normpath(f"/{spelled}").replace("//", "/")
    inside = f"{cleaned}/".startswith("/etc/netutil/")
    for make in (mounted, reported, device):
        messages = refusals(make(spelled))
        assert messages or not inside


def test_the_example_pod_is_admitted_and_an_agents_pod_is_not() -> None:
    assert refusals(one(read(EXAMPLE_POD), "Pod")) == []
    for path in (DEFAULT, HARDENED):
        assert PATH in said({"spec": pod_of(read(path))})


def test_it_judges_pods_and_ephemeral_containers_fails_closed() -> None:
    spec = policy()["spec"]
    rules = [
        (operation, resource)
        for rule in spec["matchConstraints"]["resourceRules"]
        for operation in rule["operations"]
        for resource in rule["resources"]
    ]
    assert rules == [("CREATE", "pods"), ("UPDATE", "pods/ephemeralcontainers")]
    assert spec["failurePolicy"] == "Fail"


def test_its_binding_denies_outside_the_agents_namespace() -> None:
    binding = one(read(HOSTPATH_POLICY), "ValidatingAdmissionPolicyBinding")["spec"]
    assert binding["policyName"] == policy()["metadata"]["name"]
    assert binding["validationActions"] == ["Deny"]
    label = binding["matchResources"]["namespaceSelector"]["matchLabels"]
    assert label == {"netutil/hostpath": "only"}
    for path in (DEFAULT, HARDENED):
        labels = one(read(path), "Namespace")["metadata"]["labels"]
        assert not label.items() <= labels.items()
