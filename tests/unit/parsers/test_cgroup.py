"""From real /proc/<pid>/cgroup texts to pod and container, and what must not be believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import AgentError, FailedPrecondition, PermissionDenied, Reason
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import CgroupIdentity, choose_container, parse_cgroup_file
from netutil.agent.parsers.cgroup import identify as identify_at_root
from netutil.agent.parsers.pod_cgroups import locate, normalise_uid, pod_places

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
UID_ = UID.replace("-", "_")
STATIC = "d71a3f8c2b9e4a6f8c0d1e2f3a4b5c6d"
OTHER = "99999999-8888-4777-9666-555555555555"
ID = "4c1f" * 16
ID2 = "be57" * 16
AGENT = "0a11" * 16
AGENT_POD = f"/kubepods/besteffort/podaaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee/{AGENT}"


def identify(text: str, own: str = "/", cgroup_root: str = "") -> CgroupIdentity:
    """Return the identity that an agent in cgroup `own` of every hierarchy reads from a text."""
    hierarchy = Hierarchy(2, "/sys/fs/cgroup", places=pod_places(own, cgroup_root))
    controllers = {name for line in parse_cgroup_file(text) for name in line.controllers}
    return CgroupTree(dict.fromkeys((UNIFIED, *controllers), hierarchy)).identify(text)


OUTER = f"/kubepods/burstable/pod{OTHER}/{'0e' * 32}"
"""A pod's container that a whole node runs in: Docker in it, and kind's node in that."""

REAL_WORLD = {
    "containerd, cgroupfs driver, v1": (
        f"11:cpuset:/kubepods/burstable/pod{UID}/{ID}\n"
        f"4:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
        f"1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n",
        (UID, ID),
    ),
    "guaranteed pod": (f"0::/kubepods/pod{UID}/{ID}\n", (UID, ID)),
    "hybrid: the unified line has another path": (
        f"5:cpuset:/kubepods/besteffort/pod{UID}/{ID}\n0::/system.slice/containerd.service\n",
        (UID, ID),
    ),
    "containerd, systemd driver, v2": (
        "0::/kubepods.slice/kubepods-burstable.slice/"
        f"kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope\n",
        (UID, ID),
    ),
    "CRI-O, systemd driver, v2, with its inner cgroup": (
        "0::/kubepods.slice/kubepods-besteffort.slice/"
        f"kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope/container\n",
        (UID, ID),
    ),
    "CRI-O, cgroupfs driver": (f"0::/kubepods/burstable/pod{UID}/crio-{ID}\n", (UID, ID)),
    "Docker, systemd driver": (
        f"0::/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope\n",
        (UID, ID),
    ),
    "Docker, cgroupfs driver": (f"9:cpuset:/kubepods/besteffort/pod{UID}/{ID}\n", (UID, ID)),
    "static pod: the config hash without dashes": (
        f"6:cpuset:/kubepods/burstable/pod{STATIC}/{ID}\n",
        (STATIC, ID),
    ),
    "static pod, systemd driver": (
        f"0::/kubepods.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope\n",
        (STATIC, ID),
    ),
    "containerd without SystemdCgroup under the systemd driver": (
        "6:cpuset:/system.slice/containerd.service/"
        f"kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}\n",
        (UID, ID),
    ),
    "the same, other hierarchy spelling": (
        f"1:name=systemd:/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}\n",
        (UID, ID),
    ),
    "kind: the node is itself a Docker container": (
        f"0::/docker/{ID2}/kubelet/kubepods/burstable/pod{UID}/{ID}\n",
        (UID, ID),
    ),
    "kind, systemd driver": (
        f"0::/system.slice/docker-{ID2}.scope/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope\n",
        (UID, ID),
    ),
    "kubelet with its own cgroup root, named by --cgroup-root": (
        f"3:cpuset:/lab-1/kubepods/burstable/pod{STATIC}/{ID}\n",
        (STATIC, ID),
    ),
    "the same root with the systemd driver, named by --cgroup-root": (
        "0::/lab_1.slice/lab_1-kubepods.slice/lab_1-kubepods-besteffort.slice/"
        f"lab_1-kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope\n",
        (UID, ID),
    ),
    "a node inside a pod": (
        f"0::{OUTER}/docker/{ID2}/kubelet/kubepods/burstable/pod{UID}/{ID}\n",
        (UID, ID),
    ),
    "containerd in a slice of its own, as EKS has it": (
        f"0::/runtime.slice/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}\n",
        (UID, ID),
    ),
    "the same, below its service": (
        "0::/runtime.slice/containerd.service/"
        f"kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}\n",
        (UID, ID),
    ),
    "a node inside a pod, joined names": (
        f"0::{OUTER}/docker/{ID2}/system.slice/containerd.service/"
        f"kubepods-pod{UID_}.slice:cri-containerd:{ID}\n",
        (UID, ID),
    ),
    "a node inside a pod, whose own cgroup root is the usual one": (
        f"0::{OUTER}/docker/{ID2}/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope\n",
        (UID, ID),
    ),
    "systemd inside the pod": (
        f"0::/kubepods/burstable/pod{UID}/{ID}/system.slice/sshd.service\n",
        (UID, ID),
    ),
    "a container engine inside the pod": (
        f"0::/kubepods/burstable/pod{UID}/{ID}/docker/{ID2}\n",
        (UID, ID),
    ),
    "kubernetes inside the pod": (
        f"0::/kubepods/burstable/pod{UID}/{ID}/kubepods/besteffort/pod{OTHER}/{ID2}\n",
        (UID, ID),
    ),
    "a cgroup made to look like another pod": (
        f"0::/kubepods/burstable/pod{UID}/{ID}/pod{OTHER}/{ID2}\n",
        (UID, ID),
    ),
    "names with colons and blanks deeper down": (
        f"0::/kubepods/burstable/pod{UID}/{ID}/a:b c:d\n",
        (UID, ID),
    ),
}


OWN = {
    "kind: the node is itself a Docker container": (
        f"/docker/{ID2}/kubelet{AGENT_POD}",
        f"/docker/{ID2}/system.slice/netutil-agent.service",
    ),
    "kind, systemd driver": (
        f"/system.slice/docker-{ID2}.scope/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-podaaaaaaaa_bbbb_4ccc_8ddd_eeeeeeeeeeee.slice/"
        f"cri-containerd-{AGENT}.scope",
        f"/system.slice/docker-{ID2}.scope/system.slice/netutil-agent.service",
    ),
    "a node inside a pod": (
        f"{OUTER}/docker/{ID2}/kubelet{AGENT_POD}",
        f"{OUTER}/docker/{ID2}/system.slice/netutil-agent.service",
    ),
    "a node inside a pod, joined names": (
        f"{OUTER}/docker/{ID2}/system.slice/netutil-agent.service",
        f"{OUTER}/docker/{ID2}/system.slice/containerd.service/"
        f"kubepods-podaaaaaaaa_bbbb_4ccc_8ddd_eeeeeeeeeeee.slice:cri-containerd:{AGENT}",
    ),
    "a node inside a pod, whose own cgroup root is the usual one": (
        f"{OUTER}/docker/{ID2}/system.slice/docker-{AGENT}.scope",
    ),
}
"""Where the agent itself may stand, for the nodes where that is needed to know."""
EVERYWHERE = ("/", AGENT_POD, "/system.slice/netutil-agent.service", f"/docker/{AGENT}")
FLAG = {case: "/lab-1" for case in REAL_WORLD if "--cgroup-root" in case}


@pytest.mark.parametrize(
    ("case", "own"), [(case, own) for case in REAL_WORLD for own in OWN.get(case, EVERYWHERE)]
)
def test_a_real_cgroup_file_names_its_pod_and_container(case: str, own: str) -> None:
    text, (uid, container_id) = REAL_WORLD[case]
    found = identify(text, own, FLAG.get(case, ""))
    assert (found.pod_uid, found.container_id) == (normalise_uid(uid), container_id)


def test_an_agent_in_a_pod_learns_the_kubelets_cgroup_root() -> None:
    own = f"/lab{AGENT_POD}"
    assert identify(f"3:cpuset:/lab/kubepods/pod{UID}/{ID}\n", own).container_id == ID
    own = f"/lab.slice/lab-kubepods.slice/lab-kubepods-pod{OTHER.replace('-', '_')}.slice"
    text = f"0::/lab.slice/lab-kubepods.slice/lab-kubepods-pod{UID_}.slice/crio-{ID}.scope\n"
    assert identify(text, f"{own}/crio-{AGENT}.scope").container_id == ID


@pytest.mark.parametrize("case", [case for case in REAL_WORLD if case.startswith("kind")])
@pytest.mark.parametrize("own", EVERYWHERE)
def test_no_name_counts_in_a_container_without_the_agent(case: str, own: str) -> None:
    """Root in a container that no kubelet started makes cgroups that belong to root, too."""
    try:
        found = identify(REAL_WORLD[case][0], own)
    except PermissionDenied as refusal:
        assert refusal.reason is Reason.OUTSIDE_KUBELET_CGROUPS
        return
    assert (found.pod_uid, found.container_id) == (None, None)
    with pytest.raises(PermissionDenied):
        choose_container(found, [ID])


PLACES_OF_FOREIGN_ENGINES = (
    f"machine.slice/libpod-{ID2}.scope/container",  # podman, systemd cgroup manager
    f"machine.slice/libpod-{ID2}.scope",
    f"libpod_parent/libpod-{ID2}",  # podman, cgroupfs cgroup manager
    f"machine.slice/machine-libpod_pod_{ID2}.slice/libpod-{ID2}.scope/container",  # podman pod
    f"system.slice/app.service/libpod-payload-{ID2}",  # podman --cgroups=split
    f"user.slice/user-0.slice/user@0.service/user.slice/libpod-{ID2}.scope/container",
    "machine.slice/systemd-nspawn@box.service/payload",
    "machine.slice/systemd-nspawn@box.service",
    "machine.slice/machine-box.scope/payload",
    "machine.slice/machine-lxc\\x2d1\\x2dbox.scope",  # libvirt
    "lxc.payload.box",
    "lxc/box",
    "lxc.monitor/box",
    "garden/box",
    "mesos/5f9b3bb0-6ad6-4b5a-8a5f-0e4a1d9b7c2d",
    "default/nerdctl",
    f"system.slice/nerdctl-{ID2}.scope",
    f"system.slice/docker-{ID2}.scope",
    f"docker/{ID2}",
    f"docker/{ID2}/docker/{'a' * 64}",
    f"default/{ID2}",
    f"kubepods/{ID2}",  # docker run --cgroup-parent
    f"kubepods/burstable/{ID2}",
    f"kubepods.slice/docker-{ID2}.scope",
    f"kubepods.slice/kubepods-burstable.slice/libpod-{ID2}.scope/container",
    "kubepods/box",
    "system.slice/app.service",
    "init.scope",
    "next-engine",
)
VICTIMS = (
    f"kubepods/burstable/pod{UID}/{ID}",
    f"kubelet/kubepods/pod{UID}/{ID}",
    f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope",
    f"pod{UID}/{ID}",
    f"kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
    f"crio-{ID}.scope",
    ID,
    f"system.slice/containerd.service/kubepods-pod{UID_}.slice:cri-containerd:{ID}",
)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("place", PLACES_OF_FOREIGN_ENGINES)
@pytest.mark.parametrize("own", [*EVERYWHERE, f"/kubelet{AGENT_POD}"])
def test_a_foreign_container_never_passes_for_a_pod(place: str, victim: str, own: str) -> None:
    """Root in it makes directories that are root's, of any name, and knows both IDs."""
    try:
        found = identify(f"0::/{place}/{victim}\n", own)
    except PermissionDenied as refusal:
        assert refusal.reason is Reason.OUTSIDE_KUBELET_CGROUPS
        assert "--cgroup-root" in refusal.advice
        return
    assert found.pod_uid is None
    with pytest.raises(PermissionDenied):
        choose_container(found, [ID])


names = st.text(
    st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..", "kubepods", "kubelet", "kubepods.slice"))


@given(st.lists(names, min_size=1, max_size=4), st.sampled_from(VICTIMS[:4]))
def test_only_the_kubelets_own_tree_has_pods(above: list[str], victim: str) -> None:
    found = locate(f"/{'/'.join(above)}/{victim}", pod_places(AGENT_POD))
    assert (found.pod_uid, found.container_id) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        f"kubepods.slice/kubepods-evil.slice/kubepods-burstable-pod{UID_}.slice/{ID}",
        f"kubepods.slice/other-kubepods-pod{UID_}.slice/{ID}",
        f"other-kubepods.slice/other-kubepods-pod{UID_}.slice/{ID}",
        f"kubepods/burstable/burstable/pod{UID}/{ID}",
        f"kubepods/kubepods/pod{UID}/{ID}",
        f"kubepods/x/pod{UID}/{ID}",
        f"kubepods.slice/pod{UID}/{ID}",
    ],
)
def test_a_path_that_is_not_as_the_kubelet_makes_it_is_no_pods(name: str) -> None:
    with pytest.raises(PermissionDenied) as refused:
        identify(f"0::/{name}\n", AGENT_POD)
    assert refused.value.reason is Reason.OUTSIDE_KUBELET_CGROUPS


NAMESPACED = "/kubepods/burstable/podaaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee/" + AGENT
SLICED = (
    "/kubepods.slice/kubepods-burstable.slice/"
    f"kubepods-burstable-podaaaaaaaa_bbbb_4ccc_8ddd_eeeeeeeeeeee.slice/cri-containerd-{AGENT}.scope"
)


@pytest.mark.parametrize(
    ("namespace", "path"),
    [
        (NAMESPACED, f"/../../pod{UID}/{ID}"),
        (NAMESPACED, f"/../../../besteffort/pod{UID}/{ID}"),
        (SLICED, f"/../../kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"),
        (SLICED, f"/../../../kubepods-pod{UID_}.slice/crio-{ID}.scope"),
    ],
)
def test_a_path_relative_to_the_agents_cgroup_is_made_absolute(namespace: str, path: str) -> None:
    hierarchy = Hierarchy(2, "/c", namespace=namespace, places=pod_places(namespace))
    found = CgroupTree({UNIFIED: hierarchy}).identify(f"0::{path}\n")
    assert (found.pod_uid, found.container_id) == (normalise_uid(UID), ID)
    foreign = f"0::/../../../../machine.slice/libpod-{ID2}.scope/container/kubepods/pod{UID}/{ID}\n"
    with pytest.raises(PermissionDenied) as refused:
        CgroupTree({UNIFIED: hierarchy}).identify(foreign)
    assert refused.value.reason is Reason.OUTSIDE_KUBELET_CGROUPS


def test_a_path_above_the_agents_view_is_refused_with_the_fix() -> None:
    """Its own cgroup namespace, and no mount of the host's: `..` cannot be followed."""
    with pytest.raises(PermissionDenied) as refused:
        identify(f"0::/../../kubepods/burstable/pod{UID}/{ID}\n")
    assert refused.value.reason is Reason.CGROUP_NOT_OWNED_BY_ROOT
    assert "--host-root" in refused.value.advice


def test_a_hierarchy_that_the_agent_does_not_see_says_nothing() -> None:
    tree = CgroupTree({"cpuset": Hierarchy(1, "/c")})
    text = f"4:cpuset:/kubepods/pod{UID}/{ID}\n3:pids:/kubepods/pod{OTHER}/{ID2}\n"
    assert tree.identify(text).container_id == ID
    with pytest.raises(PermissionDenied) as refused:
        tree.identify(f"4:cpuset:/\n3:pids:/kubepods/pod{OTHER}/{ID2}\n")
    assert refused.value.reason is Reason.CGROUP_NOT_OWNED_BY_ROOT


@pytest.mark.parametrize("inner", [f"pod{OTHER}/{ID2}", f"a/kubepods-pod{OTHER}.slice/{ID2}", ID2])
def test_a_container_without_a_pod_uid_is_not_one_nested_in_it(inner: str) -> None:
    found = identify(f"0::/system.slice/crio-{ID}.scope/{inner}\n")
    assert choose_container(found, [ID, ID2]).container_id == ID
    with pytest.raises(PermissionDenied):
        choose_container(found, [ID2])


NO_POD = {
    "root cgroup": "0::/\n",
    "system service": "0::/system.slice/sshd.service\n",
    "user session": "0::/user.slice/user-1000.slice/user@1000.service/app.slice\n",
    "empty file": "",
    "CRI-O's monitor is a host process": (
        f"0::/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope\n"
    ),
    "a container ID with a suffix": f"0::/kubepods/pod{UID}/{ID}-init\n",
    "a container ID that is too short": f"0::/kubepods/pod{UID}/{ID[:-1]}\n",
    "a zombie in a removed cgroup": f"0::/kubepods/pod{UID}/{ID} (deleted)\n",
    "a sandbox of Kata's": f"0::/kubepods/burstable/pod{UID}/kata_{ID}\n",
    "the pod's own cgroup in one hierarchy only": (
        f"2:cpu:/kubepods/pod{UID}\n1:cpuset:/kubepods/pod{UID}/crio-conmon-{ID}\n"
    ),
    "upper case is no name of the kubelet's": f"0::/kubepods/pod{UID.upper()}/{ID.upper()}\n",
}


@pytest.mark.parametrize("case", NO_POD)
def test_a_process_outside_of_containers_is_refused(case: str) -> None:
    with pytest.raises(PermissionDenied) as refusal:
        identify(NO_POD[case])
    assert refusal.value.reason is Reason.NOT_A_POD


segments = st.text(
    st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=80
).filter(lambda name: name not in (".", ".."))  # no cgroup has such a name

IN_THE_POD = {
    "gVisor on cgroup v1": (
        f"4:cpu,cpuacct:/kubepods/burstable/pod{UID}\n1:cpuset:/kubepods/burstable/pod{UID}\n"
    ),
    "systemd driver": f"3:cpuset:/kubepods.slice/kubepods-pod{UID_}.slice\n",
    "other hierarchies are elsewhere": f"5:cpuset:/kubepods/pod{UID}\n0::/system.slice/x\n",
}


@pytest.mark.parametrize("case", IN_THE_POD)
def test_a_process_in_a_pods_cgroup_is_in_no_container(case: str) -> None:
    found = identify(IN_THE_POD[case])
    assert (found.pod_uid, found.container_id) == (normalise_uid(UID), None)
    path = found.container_path("cpuset")
    assert path is not None and path.endswith((f"pod{UID}", f"pod{UID_}.slice"))


def test_one_hierarchy_that_names_a_container_decides() -> None:
    found = identify(f"2:cpu:/kubepods/pod{UID}\n1:cpuset:/kubepods/pod{UID}/{ID}\n")
    assert found.container_id == ID
    assert found.container_path("cpu") is None


@given(st.lists(segments, min_size=1, max_size=3))
def test_below_a_pod_only_a_containers_name_makes_a_caller(deeper: list[str]) -> None:
    text = f"0::/kubepods/pod{UID}/" + "/".join(deeper) + "\n"
    try:
        found = identify(text)
    except PermissionDenied as error:
        assert error.reason is Reason.NOT_A_POD
        return
    assert found.container_id is not None


@pytest.mark.parametrize(
    "text",
    [
        f"2:cpu:/kubepods/pod{UID}/{ID}\n1:cpuset:/kubepods/pod{OTHER}/{ID}\n",
        f"2:cpu:/kubepods/pod{UID}/{ID}\n1:cpuset:/kubepods/pod{UID}/{ID2}\n",
    ],
)
def test_hierarchies_that_name_different_pods_are_refused(text: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        identify(text)
    assert refusal.value.reason is Reason.CGROUPS_DISAGREE


@pytest.mark.parametrize("text", ["nonsense\n", "x:cpu:/\n", "1:cpu\n", "1:cpu:relative\n"])
def test_a_line_that_is_not_of_the_kernel_is_refused(text: str) -> None:
    with pytest.raises(FailedPrecondition):
        identify(text)


def test_the_first_foreign_container_decides_without_a_pod_uid() -> None:
    own = f"/docker/{ID}/system.slice/netutil-agent.service"
    found = identify(f"0::/docker/{ID}/crio-{ID2}.scope/inner/{'d' * 64}\n", own)
    assert found.pod_uid is None
    assert choose_container(found, [ID, ID2]).container_id == ID2
    assert found.placements[0].containers == ((ID2, f"/docker/{ID}/crio-{ID2}.scope"),)
    with pytest.raises(PermissionDenied):
        choose_container(found, ["d" * 64])


def test_a_container_without_a_pod_uid_may_be_the_agents_own() -> None:
    for own in (f"/system.slice/crio-{ID}.scope", f"/system.slice/crio-{ID}.scope/container"):
        found = identify(f"0::{own}\n", own)
        assert choose_container(found, [ID]).container_id == ID


def test_a_node_in_a_pod_has_containers_without_a_pod_uid_too() -> None:
    own = f"{OUTER}/docker/{ID2}/system.slice/crio-{AGENT}.scope"
    found = identify(f"0::{OUTER}/docker/{ID2}/system.slice/crio-{ID}.scope\n", own)
    assert choose_container(found, [ID]).container_id == ID


def test_hierarchies_with_only_the_nodes_container_are_ignored() -> None:
    own = f"/docker/{ID2}/system.slice/netutil-agent.service"
    text = f"13:misc:/docker/{ID2}\n2:cpu:/docker/{ID2}/system.slice/crio-{ID}.scope\n"
    (placement,) = identify(text, own).placements
    assert [one for one, _ in placement.containers] == [ID]


def test_an_unknown_container_without_a_pod_uid_is_refused() -> None:
    with pytest.raises(PermissionDenied):
        choose_container(identify(f"0::/system.slice/crio-{ID}.scope\n"), [])


def test_hierarchies_without_a_pod_uid_must_agree_on_containers() -> None:
    found = identify(f"2:cpu:/docker/{ID}\n1:cpuset:/docker/{ID2}\n")
    with pytest.raises(FailedPrecondition):
        choose_container(found, [ID, ID2])


@given(st.lists(st.one_of(segments, st.just(f"pod{OTHER}"), st.just(ID2)), max_size=6))
def test_nothing_below_the_container_changes_the_answer(deeper: list[str]) -> None:
    text = f"0::/kubepods/burstable/pod{UID}/{ID}" + "".join(f"/{one}" for one in deeper) + "\n"
    found = identify(text)
    assert (found.pod_uid, found.container_id) == (normalise_uid(UID), ID)


@given(st.text())
def test_any_text_gives_an_identity_or_a_typed_refusal(text: str) -> None:
    try:
        identify_at_root(text)
    except AgentError as error:
        assert error.message


def test_the_path_of_the_container_is_given_per_hierarchy() -> None:
    pod = f"kubepods/pod{UID}/{ID}"
    found = identify(f"4:cpu,cpuacct:/{pod}/x\n3:cpuset:/kubelet/{pod}\n")
    assert found.container_path("cpuacct") == f"/{pod}"
    assert found.container_path("cpuset") == f"/kubelet/{pod}"
    assert found.container_path("") is None


def test_lines_are_read_as_cgroups_7_says() -> None:
    (line,) = parse_cgroup_file("12:cpu,cpuacct:/a:b\n")
    assert (line.hierarchy, line.controllers, line.path) == (12, ("cpu", "cpuacct"), "/a:b")


def test_a_hierarchy_number_of_no_kernel_is_refused() -> None:
    with pytest.raises(FailedPrecondition):
        identify(f"{'1' * 5000}:cpuset:/kubepods/pod{UID}/{ID}\n")
