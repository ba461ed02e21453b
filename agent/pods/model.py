"""The part of a Kubernetes pod that the agent uses, decoded from a PodList.

Names and meanings are those of core/v1 (Kubernetes API reference, Pod v1). Only
the fields that stand here are built; msgspec skips all others without
allocating them, so a list of 250 pods costs milliseconds. A field that is null is
a field that is not set: Go prints a nil list or map so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from netutil.agent.pods.spec import Spec

_LOG = logging.getLogger(__name__)

CONFIG_HASH = "kubernetes.io/config.hash"
"""Annotation of a static pod: the UID that the kubelet and the cgroups know it by."""
CONFIG_MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a mirror pod, the API server's copy of a static pod: that same hash."""
CONFIG_SOURCE = "kubernetes.io/config.source"
"""Annotation that the kubelet sets on each pod of its own list: "api", "file" or "http"."""


class PodListMalformed(ValueError):
    """What was read is no pod list. The text says where it breaks: "it is …"."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ObjectMeta."""

    name: str
    uid: Annotated[str, msgspec.Meta(min_length=1)]
    namespace: str = "default"
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Present(msgspec.Struct, frozen=True, gc=False):
    """An object of which only its presence counts."""


class Running(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """ContainerStateRunning. `started_at` is RFC 3339, in whole seconds."""

    started_at: str = ""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ContainerState: one of the three is there."""

    running: Running | None = None
    waiting: Present | None = None
    terminated: Present | None = None


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ContainerStatus. `container_id` is `<runtime>://<id>`, empty before the first start."""

    name: str
    container_id: str = msgspec.field(name="containerID", default="")
    state: ContainerState | None = None

    @property
    def id(self) -> str:
        """Return the container ID without the runtime's prefix, "" before the first start."""
        return self.container_id.rpartition("://")[2]

    @property
    def started_at(self) -> datetime | None:
        """Return when the container that runs was started (UTC); None if that is not said."""
        if self.state is None or self.state.running is None:
            return None
        try:
            found = datetime.fromisoformat(self.state.running.started_at)
        except ValueError:
            return None
        return found if found.tzinfo is not None else None

    @property
    def state_name(self) -> str:
        """Return "running", "waiting" or "terminated"; "waiting" is also the API's default."""
        if self.state is not None:
            if self.state.running is not None:
                return "running"
            if self.state.terminated is not None:
                return "terminated"
        return "waiting"


class IP(msgspec.Struct, frozen=True, gc=False):
    """PodIP."""

    ip: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """PodStatus."""

    phase: str = ""
    qos_class: str = msgspec.field(name="qosClass", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[IP, ...] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    ephemeral_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Pod. `kind` is "" or "Pod": in a PodList it is not repeated."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()
    kind: str = ""

    @property
    def full_name(self) -> str:
        """Return namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def cgroup_uid(self) -> str:
        """Return the UID that the pod's cgroups bear: a static pod's is its config hash.

        Anybody who may create a pod may write that annotation, so it counts for
        nothing where the kubelet says that the pod came from the API server.
        """
        annotations = self.metadata.annotations or {}
        if annotations.get(CONFIG_SOURCE) == "api":
            return self.metadata.uid
        return annotations.get(CONFIG_HASH) or self.metadata.uid

    @property
    def is_mirror(self) -> bool:
        """Return whether this is the API server's copy of a static pod."""
        return CONFIG_MIRROR in (self.metadata.annotations or {})

    def may_own_cpus(self, container_name: str) -> bool:
        """Return whether the kubelet may have given a container CPUs that nobody else uses.

        Its static policy does so in pods of the class Guaranteed, for a whole number of CPUs
        (Kubernetes documentation, "Control CPU Management Policies on the Node").
        """
        guaranteed = self.status.qos_class == "Guaranteed"
        return guaranteed and container_name not in self.spec.sharing_cpus

    @property
    def ips(self) -> tuple[str, ...]:
        """Return the pod's IPs, none twice."""
        many = tuple(dict.fromkeys(one.ip for one in self.status.pod_ips or () if one.ip))
        return many or ((self.status.pod_ip,) if self.status.pod_ip else ())

    @property
    def container_statuses(self) -> tuple[tuple[str, ContainerStatus], ...]:
        """Return (kind, status) of every container: "init", "container" or "ephemeral"."""
        status = self.status
        return (
            *(("init", one) for one in status.init_container_statuses or ()),
            *(("container", one) for one in status.container_statuses or ()),
            *(("ephemeral", one) for one in status.ephemeral_container_statuses or ()),
        )


class _List(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...] | msgspec.UnsetType | None = msgspec.UNSET
    kind: str = "PodList"


class _Name(msgspec.Struct, frozen=True):
    name: str
    namespace: str = "default"


class _Named(msgspec.Struct, frozen=True):
    metadata: _Name


_LISTS = msgspec.json.Decoder(_List)
_PODS = msgspec.json.Decoder(Pod)
_NAMES = msgspec.json.Decoder(_Named)
# RecursionError: a body may nest as deep as it likes.
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_pod_list(body: bytes | bytearray) -> tuple[Pod, ...]:
    """Return the pods of a PodList in JSON.

    A pod that is not as core/v1 says is left out and logged: it must not take
    the others' answers away. Raises `PodListMalformed`, saying where, if the
    list itself is broken, is no PodList, or has no pod that can be read.
    """
    try:
        found = _LISTS.decode(body)
    except _BROKEN as error:
        raise PodListMalformed(f"it is no PodList: {error} (of {len(body)} bytes)") from None
    return _pods(found.kind, found.items, _PODS.decode, _NAMES.decode)


def convert_pod_list(document: object) -> tuple[Pod, ...]:
    """Return the pods of a PodList that was parsed from YAML. Raises as `decode_pod_list`."""
    if not isinstance(document, dict):
        raise PodListMalformed(f"it is no PodList: it holds no object, {type(document).__name__}")
    items = document.get("items", msgspec.UNSET)
    if not (items is None or items is msgspec.UNSET or isinstance(items, list)):
        raise PodListMalformed("it is no PodList: `items` is no list")

    def pod(item: object) -> Pod:
        return msgspec.convert(item, Pod)

    def named(item: object) -> _Named:
        return msgspec.convert(item, _Named)

    kind = document.get("kind", "PodList")
    if not isinstance(kind, str):
        raise PodListMalformed("it is no PodList: `kind` is no text")
    return _pods(kind, items, pod, named)


def _pods(
    kind: str,
    items: Iterable[Any] | msgspec.UnsetType | None,
    decode: Callable[[Any], Pod],
    decode_name: Callable[[Any], _Named],
) -> tuple[Pod, ...]:
    # kubectl prints several objects as a List.
    if kind not in ("PodList", "List"):
        raise PodListMalformed(f"it is a {kind[:64]!r}, not a PodList")
    if isinstance(items, msgspec.UnsetType):
        raise PodListMalformed("it is no PodList: it has no `items`")
    pods: list[Pod] = []
    bad: list[str] = []
    for number, item in enumerate(items or ()):
        try:
            pod = decode(item)
        except _BROKEN as error:
            bad.append(f"item {number}{_named(item, decode_name)}: {error}")
            continue
        if pod.kind in ("", "Pod"):
            pods.append(pod)
        else:
            bad.append(f"item {number}: it is a {pod.kind[:64]!r}, not a Pod")
    if bad and not pods:
        raise PodListMalformed(f"it is no PodList: none of its pods can be read; {bad[0]}")
    if bad:
        whole = len(bad) + len(pods)
        _LOG.warning("pod list: %d of %d left out; the first, %s", len(bad), whole, bad[0])
    return tuple(pods)


def _named(item: object, decode_name: Callable[[Any], _Named]) -> str:
    try:
        found = decode_name(item).metadata
    except _BROKEN:
        return ""
    return f" ({f'{found.namespace}/{found.name}'!r:.256})"
