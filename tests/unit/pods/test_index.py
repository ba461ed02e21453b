from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.pods.index import Match, PodList, index
from netutil.agent.pods.model import Pod, convert_pod_list

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
UID = "3C1B0C7E-7f1c-4f0e-9d55-0a4d1b1a6c11"
PLAIN_UID = "3c1b0c7e7f1c4f0e9d550a4d1b1a6c11"
OTHER_UID = "99999999-0000-4000-8000-000000000000"
HASH = "0123456789abcdef0123456789abcdef"
STATIC = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.source": "file"}
MIRROR = {**STATIC, "kubernetes.io/config.mirror": HASH}
APP, SETUP, DEBUG, OTHER = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def pod(
    name: str,
    uid: str,
    containers: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **statuses: dict[str, str],
) -> Pod:
    status = {
        f"{kind}": [{"name": key, "containerID": value} for key, value in ids.items()]
        for kind, ids in {"containerStatuses": containers or {}, **statuses}.items()
    }
    metadata = {"name": name, "uid": uid, "annotations": annotations}
    (made,) = convert_pod_list({"items": [{"metadata": metadata, "status": status}]})
    return made


WEB = pod(
    "web",
    UID,
    {"app": f"containerd://{APP}", "late": ""},
    initContainerStatuses={"setup": f"cri-o://{SETUP}"},
    ephemeralContainerStatuses={"debug": f"docker://{DEBUG}"},
)


def listed(*pods: Pod) -> PodList:
    return index(pods, NOW)


def found(match: Match | None) -> tuple[str, str, str]:
    assert match is not None
    assert match.observed_at == NOW
    return match.pod.metadata.name, match.container_name, match.container_kind


@pytest.mark.parametrize(
    ("container_id", "name", "kind"),
    [(APP, "app", "container"), (SETUP, "setup", "init"), (DEBUG, "debug", "ephemeral")],
)
@pytest.mark.parametrize("uid", [UID, PLAIN_UID, UID.replace("-", "_"), None])
def test_a_container_of_each_kind_and_runtime_is_found(
    container_id: str, name: str, kind: str, uid: str | None
) -> None:
    assert found(listed(WEB).find(uid, container_id)) == ("web", name, kind)


@pytest.mark.parametrize("container_id", [OTHER, None, ""])
def test_a_container_without_a_status_is_matched_by_its_pod(
    container_id: str | None,
) -> None:
    assert found(listed(WEB).find(PLAIN_UID, container_id)) == ("web", "", "")


@pytest.mark.parametrize(("uid", "container_id"), [(None, OTHER), (None, None), (HASH, OTHER)])
def test_a_pod_outside_of_the_list_is_not_found(uid: str | None, container_id: str | None) -> None:
    assert listed(WEB).find(uid, container_id) is None


@pytest.mark.parametrize("uid", [OTHER_UID, HASH], ids=["of another pod", "of no pod"])
def test_a_container_of_another_pod_than_the_uids_is_refused(uid: str) -> None:
    with pytest.raises(FailedPrecondition, match="belongs to pod default/web") as caught:
        listed(WEB, pod("db", OTHER_UID)).find(uid, APP)
    assert caught.value.reason is Reason.CGROUPS_DISAGREE


@pytest.mark.parametrize("uid", [None, UID, OTHER_UID])
def test_one_container_in_two_pods_is_refused(uid: str | None) -> None:
    twice = listed(WEB, pod("db", OTHER_UID, {"app": f"containerd://{APP}"}))
    with pytest.raises(FailedPrecondition, match="default/db, default/web") as caught:
        twice.find(uid, APP)
    assert caught.value.reason is Reason.CONTAINER_IN_TWO_PODS


def test_two_pods_of_one_name_differ_by_their_uids() -> None:
    """A pod, and its successor, which was created before the first left the list."""
    twice = listed(WEB, pod("web", OTHER_UID, {"app": f"containerd://{APP}"}))
    with pytest.raises(FailedPrecondition, match=rf"default/web \(UID {UID}\)") as caught:
        twice.find(None, APP)
    assert f"default/web (UID {OTHER_UID})" in caught.value.message


def test_a_static_pod_is_found_by_its_hash() -> None:
    mirror = pod("etcd", OTHER_UID, {"etcd": f"containerd://{APP}"}, MIRROR)
    for uid in (HASH, OTHER_UID):
        assert found(listed(mirror).find(uid, APP)) == ("etcd", "etcd", "container")
        assert found(listed(mirror).find(uid, None)) == ("etcd", "", "")


@pytest.mark.parametrize("own_has", [True, False])
@pytest.mark.parametrize("mirror_has", [True, False])
@pytest.mark.parametrize("mirror_first", [True, False])
def test_a_static_pod_and_its_mirror_are_one_pod(
    own_has: bool, mirror_has: bool, mirror_first: bool
) -> None:
    containers = {"etcd": f"containerd://{APP}"}
    own = pod("etcd", HASH, containers if own_has else None, STATIC)
    mirror = pod("etcd", OTHER_UID, containers if mirror_has else None, MIRROR)
    both = listed(*((mirror, own) if mirror_first else (own, mirror)))
    assert both.pods == ((own,) if own_has or not mirror_has else (mirror,))
    for uid in (HASH, OTHER_UID):
        name = "etcd" if own_has or mirror_has else ""
        assert found(both.find(uid, APP))[:2] == ("etcd", name)


@pytest.mark.parametrize("claim", [STATIC, MIRROR])
@pytest.mark.parametrize("first", [True, False])
def test_a_tenants_annotation_takes_no_pods_place(claim: dict[str, str], first: bool) -> None:
    claims = {key: PLAIN_UID if value == HASH else value for key, value in claim.items()}
    tenant = pod("tenant", OTHER_UID, {"app": f"containerd://{OTHER}"}, claims)
    both = listed(*((tenant, WEB) if first else (WEB, tenant)))
    assert found(both.find(UID, APP)) == ("web", "app", "container")
    assert found(both.find(UID, None)) == ("web", "", "")
    assert found(both.find(OTHER_UID, None)) == ("tenant", "", "")
    with pytest.raises(FailedPrecondition):
        both.find(UID, OTHER)


def test_a_uid_of_two_pods_is_refused_unless_a_container_decides() -> None:
    one = pod("one", UID, {"app": f"containerd://{APP}"}, MIRROR)
    two = pod("two", OTHER_UID, {"app": f"containerd://{OTHER}"}, MIRROR)
    both = listed(one, two)
    assert found(both.find(HASH, APP))[0] == "one"
    assert found(both.find(HASH, OTHER))[0] == "two"
    with pytest.raises(FailedPrecondition, match=f"pod UID {HASH} in more than one pod"):
        both.find(HASH, SETUP)


def test_a_pod_recreated_under_its_name_is_another_pod() -> None:
    old = pod("web", OTHER_UID, {"app": f"containerd://{OTHER}"})
    both = listed(old, WEB)
    assert both.find(UID, APP) != both.find(OTHER_UID, OTHER)
    assert len(both.pods) == 2


uids = st.sampled_from([UID, PLAIN_UID, OTHER_UID, HASH])
ids = st.sampled_from(["", APP, f"containerd://{APP}", f"cri-o://{OTHER}"])
some_pods = st.builds(
    pod,
    st.sampled_from(["web", "db"]),
    uids,
    st.dictionaries(st.sampled_from(["app", "side"]), ids),
    st.sampled_from([None, STATIC, MIRROR]),
)


@given(
    st.lists(some_pods, max_size=5),
    uids | st.none() | st.text(max_size=5),
    st.sampled_from([None, "", APP, OTHER, SETUP]),
)
def test_any_list_answers_with_a_matching_pod_or_refuses(
    pods: list[Pod], uid: str | None, container_id: str | None
) -> None:
    whole = index(pods, NOW)
    try:
        match = whole.find(uid, container_id)
    except FailedPrecondition:
        return
    if match is None:
        held = {status.id for one in whole.pods for _, status in one.container_statuses}
        assert not container_id or container_id not in held
        return
    assert match.pod in whole.pods
    if match.container_name:
        assert container_id in {status.id for _, status in match.pod.container_statuses}


def test_a_container_starts_at_the_end_of_its_statuss_second() -> None:
    running = {"running": {"startedAt": "2026-11-25T08:00:05Z"}}
    status = {"name": "app", "containerID": "containerd://" + "a" * 64, "state": running}
    pod = {"metadata": {"name": "web", "uid": "1"}, "status": {"containerStatuses": [status]}}
    listed = index(
        convert_pod_list({"kind": "PodList", "items": [pod]}), datetime.datetime.now(datetime.UTC)
    )
    match = listed.find(None, "a" * 64)
    assert match is not None
    assert match.started_by == datetime.datetime(2026, 11, 25, 8, 0, 6, tzinfo=datetime.UTC)


def test_a_container_that_is_not_listed_has_only_just_started() -> None:
    pod = {"metadata": {"name": "web", "uid": "1"}, "spec": {"containers": [{"name": "app"}]}}
    listed = index(
        convert_pod_list({"kind": "PodList", "items": [pod]}), datetime.datetime.now(datetime.UTC)
    )
    match = listed.find("1", "a" * 64)
    assert match is not None
    before = datetime.datetime.now(datetime.UTC)
    assert match.if_only_container().started_by >= before


def test_a_container_said_to_start_at_the_end_of_time_is_found() -> None:
    running = {"running": {"startedAt": "9999-12-31T23:59:59Z"}}
    status = {"containerStatuses": [{"name": "app", "containerID": APP, "state": running}]}
    metadata = {"name": "web", "uid": UID}
    (made,) = convert_pod_list({"items": [{"metadata": metadata, "status": status}]})
    match = listed(made).find(UID, APP)
    assert match is not None
    assert match.started_by > NOW
