"""From real /proc/<pid>/cgroup texts to pod and container, and what must not be believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import AgentError, Denied, Inconsistent, Reason
from netutil.agent.parsers.cgroup import (
    choose_container,
    identify,
    normalise_uid,
    parse_cgroup_file,
)

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
UID_ = UID.replace("-", "_")
STATIC = "d71a3f8c2b9e4a6f8c0d1e2f3a4b5c6d"
OTHER = "99999999-8888-4777-9666-555555555555"
ID = "4c1f" * 16
ID2 = "be57" * 16
NODE = frozenset({ID2})
"""What kind's agent stands in."""

REAL_WORLD = {
    "containerd, cgroupfs driver, v1": (
        f"11:cpuset:/kubepods/burstable/pod{UID}/{ID}\n"
        f"4:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
        f"1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n",
        (UID, ID),
    ),
    "guaranteed pod": (f"0::/kubepods/pod{UID}/{ID}\n", (UID, ID)),
    "hybrid: the unified line stands elsewhere": (
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
    "private cgroup namespace of the agent": (f"0::/../../pod{UID}/{ID}\n", (UID, ID)),
    "private cgroup namespace, systemd driver": (
        f"0::/../../kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope\n",
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
    "kubelet with its own cgroup root": (
        f"3:cpuset:/lab/kubepods/burstable/pod{STATIC}/{ID}\n",
        (STATIC, ID),
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


@pytest.mark.parametrize("case", REAL_WORLD)
def test_a_real_cgroup_file_names_its_pod_and_container(case: str) -> None:
    text, (uid, container_id) = REAL_WORLD[case]
    found = identify(text, NODE if case.startswith("kind") else frozenset())
    assert (found.pod_uid, found.container_id) == (normalise_uid(uid), container_id)


@pytest.mark.parametrize("case", [case for case in REAL_WORLD if case.startswith("kind")])
def test_in_a_container_that_the_agent_is_not_in_no_name_counts(case: str) -> None:
    """Root in a container that no kubelet started makes cgroups that belong to root, too."""
    found = identify(REAL_WORLD[case][0])
    assert (found.pod_uid, found.container_id) == (None, None)
    with pytest.raises(Denied):
        choose_container(found, [ID])


@pytest.mark.parametrize("inner", [f"pod{OTHER}/{ID2}", f"a/kubepods-pod{OTHER}.slice/{ID2}", ID2])
def test_a_pods_container_without_a_pod_uid_is_not_what_it_makes_within(inner: str) -> None:
    found = identify(f"0::/system.slice/crio-{ID}.scope/{inner}\n")
    assert choose_container(found, [ID, ID2]).container_id == ID
    with pytest.raises(Denied):
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
    with pytest.raises(Denied) as refusal:
        identify(NO_POD[case])
    assert refusal.value.reason is Reason.NOT_A_POD


segments = st.text(
    st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=80
)

IN_THE_POD = {
    "gVisor on cgroup v1": (
        f"4:cpu,cpuacct:/kubepods/burstable/pod{UID}\n1:cpuset:/kubepods/burstable/pod{UID}\n"
    ),
    "systemd driver": f"3:cpuset:/kubepods.slice/kubepods-pod{UID_}.slice\n",
    "other hierarchies are elsewhere": f"5:cpuset:/kubepods/pod{UID}\n0::/system.slice/x\n",
}


@pytest.mark.parametrize("case", IN_THE_POD)
def test_a_process_in_the_pods_own_cgroup_is_the_pods_in_no_container(case: str) -> None:
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
    except Denied as error:
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
def test_hierarchies_that_name_different_pods_or_containers_are_refused(text: str) -> None:
    with pytest.raises(Inconsistent) as refusal:
        identify(text)
    assert refusal.value.reason is Reason.CGROUPS_DISAGREE


@pytest.mark.parametrize("text", ["nonsense\n", "x:cpu:/\n", "1:cpu\n", "1:cpu:relative\n"])
def test_a_line_that_is_not_of_the_kernel_is_refused(text: str) -> None:
    with pytest.raises(Inconsistent):
        identify(text)


def test_without_a_pod_uid_the_outermost_known_container_decides() -> None:
    found = identify(f"0::/docker/{ID}/crio-{ID2}.scope/inner/{'d' * 64}\n", frozenset({ID}))
    assert found.pod_uid is None
    assert choose_container(found, [ID, ID2]).container_id == ID
    assert choose_container(found, [ID2]).container_id == ID2
    with pytest.raises(Denied):
        choose_container(found, ["d" * 64])


def test_without_a_pod_uid_an_unknown_container_is_refused() -> None:
    with pytest.raises(Denied):
        choose_container(identify(f"0::/machine.slice/crio-{ID}.scope\n"), [])


def test_without_a_pod_uid_hierarchies_must_agree_on_the_container() -> None:
    found = identify(f"2:cpu:/a/{ID}\n1:cpuset:/a/{ID2}\n")
    with pytest.raises(Inconsistent):
        choose_container(found, [ID, ID2])


@given(st.lists(st.one_of(segments, st.just(f"pod{OTHER}"), st.just(ID2)), max_size=6))
def test_nothing_below_the_container_changes_the_answer(deeper: list[str]) -> None:
    text = f"0::/kubepods/burstable/pod{UID}/{ID}" + "".join(f"/{one}" for one in deeper) + "\n"
    found = identify(text)
    assert (found.pod_uid, found.container_id) == (normalise_uid(UID), ID)


@given(st.text())
def test_any_text_gives_an_identity_or_a_typed_refusal(text: str) -> None:
    try:
        identify(text)
    except AgentError as error:
        assert error.sentence


def test_the_path_of_the_container_is_given_per_hierarchy() -> None:
    found = identify(f"4:cpu,cpuacct:/a/pod{UID}/{ID}/x\n3:cpuset:/b/pod{UID}/{ID}\n")
    assert found.container_path("cpuacct") == f"/a/pod{UID}/{ID}"
    assert found.container_path("cpuset") == f"/b/pod{UID}/{ID}"
    assert found.container_path("") is None


def test_lines_are_read_as_cgroups_7_says() -> None:
    (line,) = parse_cgroup_file("12:cpu,cpuacct:/a:b\n")
    assert (line.hierarchy, line.controllers, line.path) == (12, ("cpu", "cpuacct"), "/a:b")


def test_a_hierarchy_number_of_no_kernel_is_refused() -> None:
    with pytest.raises(Inconsistent):
        identify(f"{'1' * 5000}:cpuset:/kubepods/pod{UID}/{ID}\n")
