"""The part of a Kubernetes pod that the agent uses, decoded from a PodList.

Names and meanings are those of core/v1 (Kubernetes API reference, Pod v1). Only
the fields that are named here are built; msgspec skips all others without
allocating them, so a list of 250 pods costs milliseconds. A list, map or object that is null
is one that is not set: Go prints a nil one so. Of a pod that does not fit these types, what
fits is taken (`lenient`); the rest is unknown, and `Pod.not_understood` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from netutil.agent.parsers.json_value import what_is
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.lenient import Rules, UnnamedEntry, fit, load_leniently
from netutil.agent.pods.spec import Amounts, Granted, Requirements, Spec, granted_of

CONFIG_HASH = "kubernetes.io/config.hash"
"""Annotation of a static pod: the UID that the kubelet and the cgroups know it by."""
CONFIG_MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a mirror pod, the API server's copy of a static pod: that same hash."""
CONFIG_SOURCE = "kubernetes.io/config.source"
"""Annotation that the kubelet sets on each pod of its own list: "api", "file" or "http"."""


MAX_PATHS = 64
"""Of what is not understood of a pod."""


class PodListMalformed(ValueError):
    """What was read is no pod list. The text says where it breaks: "it is …"."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ObjectMeta."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
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
    """ContainerState: one of the three is there. `is_unknown`: it was not understood."""

    running: Running | None = None
    waiting: Present | None = None
    terminated: Present | None = None
    is_unknown: bool = msgspec.field(name="-unknown", default=False)


class ResourceHealth(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """ResourceHealth (KEP-4680): "Healthy", "Unhealthy" or "Unknown" of one device.

    `resource_id` is the device's ID; of a device of a claim the first name that CDI has of it, or
    "driver/pool/device" (pkg/kubelet/cm/dra, UpdateAllocatedResourcesStatus).
    """

    resource_id: str = msgspec.field(name="resourceID", default="")
    health: str = ""
    message: str | None = None


class ResourceStatus(msgspec.Struct, frozen=True, gc=False):
    """ResourceStatus: `name` is an extended resource's, or "claim:<name of the pod's claim>".

    The kubelet lists devices in another order each time, so they are sorted: what has not changed
    reads the same.
    """

    name: str = ""
    resources: tuple[ResourceHealth, ...] | None = None

    def __post_init__(self) -> None:
        if self.resources is not None:
            found = sorted(self.resources, key=_resource_id)
            msgspec.structs.force_setattr(self, "resources", tuple(found))


def _resource_id(one: ResourceHealth) -> tuple[str, str]:
    return one.resource_id, one.health


def _resource_name(one: ResourceStatus) -> str:
    return one.name


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """ContainerStatus. `container_id` is `<runtime>://<id>`, empty before the first start.

    `granted` is what is kept of `allocated_resources` and `resources`.
    """

    name: str
    container_id: str = msgspec.field(name="containerID", default="")
    state: ContainerState | None = None
    allocated_resources: Amounts | None = msgspec.field(name="allocatedResources", default=None)
    resources: Requirements | None = None
    allocated_resources_status: tuple[ResourceStatus, ...] | None = msgspec.field(
        name="allocatedResourcesStatus", default=None
    )
    granted: Granted | None = msgspec.field(name="-granted", default=None)

    def __post_init__(self) -> None:
        if self.allocated_resources_status is not None:
            health = tuple(sorted(self.allocated_resources_status, key=_resource_name))
            msgspec.structs.force_setattr(self, "allocated_resources_status", health)
        granted = granted_of(self.allocated_resources, self.resources)
        msgspec.structs.force_setattr(self, "granted", granted)
        msgspec.structs.force_setattr(self, "allocated_resources", None)
        msgspec.structs.force_setattr(self, "resources", None)

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
        """Return "running", "waiting" or "terminated"; "waiting" is also the API's default.

        "unknown" for a state that was not understood.
        """
        if self.state is not None:
            if self.state.is_unknown:
                return "unknown"
            if self.state.running is not None:
                return "running"
            if self.state.terminated is not None:
                return "terminated"
        return "waiting"


class IP(msgspec.Struct, frozen=True, gc=False):
    """PodIP."""

    ip: str = ""


class ClaimStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """PodResourceClaimStatus: the claim that was made from a template for a pod.

    Without `resource_claim_name` no claim was necessary.
    """

    name: str = ""
    resource_claim_name: str | None = None


class ExtendedResourceRequest(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """ContainerExtendedResourceRequest: a container's extended resource, and its request."""

    container_name: str = ""
    resource_name: str = ""
    request_name: str = ""


class ExtendedResourceClaim(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """PodExtendedResourceClaimStatus: the claim that backs a pod's extended resources."""

    request_mappings: tuple[ExtendedResourceRequest, ...] | None = None
    resource_claim_name: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """PodStatus. `allocated_resources` and `resources` are the pod's as a whole (KEP-5419)."""

    phase: str = ""
    qos_class: str = msgspec.field(name="qosClass", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[IP, ...] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    ephemeral_container_statuses: tuple[ContainerStatus, ...] | None = None
    allocated_resources: Amounts | None = None
    resources: Requirements | None = None
    resource_claim_statuses: tuple[ClaimStatus, ...] | None = None
    extended_resource_claim_status: ExtendedResourceClaim | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Pod. `kind` is "" or "Pod": in a PodList it is not repeated.

    `not_understood` are the paths of the fields that are unknown, since their value
    is not as core/v1 says ("status.podIP"); of very many the first, those of labels last.
    `has_more_not_understood`: some are left out that are no labels'.
    """

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()
    kind: str = ""
    not_understood: tuple[str, ...] = msgspec.field(name="-flaws", default=())
    has_more_not_understood: bool = msgspec.field(name="-more-flaws", default=False)

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "not_understood", ())
        msgspec.structs.force_setattr(self, "has_more_not_understood", False)

    def not_understood_at(self, *path: str) -> str:
        """Return the path of what is not understood of a field, "" if all is understood.

        That is the field, an object that it is in, or anything inside it. `path` is the names
        of the objects and of the field: "metadata", "annotations", … Where paths were left out,
        each field may be among them.
        """
        text, around = "", []
        for name in path:
            text = f"{text}[{name}]" if text == "metadata.annotations" else f"{text}.{name}"
            text = text.removeprefix(".")
            around.append(text)
        inside = (f"{text}.", f"{text}[")
        for odd in self.not_understood:
            if odd in around or odd.startswith(inside):
                return odd
        if self.has_more_not_understood:
            return f"one of more than {MAX_PATHS} fields"
        return ""

    @property
    def full_name(self) -> str:
        """Return namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def cgroup_uid(self) -> str:
        """Return the UID that the pod's cgroups have: a static pod's is its config hash.

        Any user who may create a pod may write that annotation, so it counts for
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
        """Return whether CPUs that PodResources lists for a container are its own.

        A kubelet that reports what it granted (Kubernetes 1.33; 1.27 behind a gate), or that
        takes resources of a whole pod (1.32), lists nothing but exclusive CPUs. Its answer
        outweighs the spec, which says what is wanted: a container that asks for 1500m now
        keeps the CPU that it has until the kubelet grants the change, which its static policy does
        not. Kubelets before 1.22 list the shared CPUs for containers without exclusive CPUs
        (kubernetes/kubernetes#100211, #97415); there a spec cannot be changed, and decides: the
        static policy serves a whole number of CPUs in pods of the class Guaranteed (Kubernetes
        documentation, "Control CPU Management Policies on the Node").
        """
        if self.spec.resources is not None or self._says_what_is_granted:
            return True
        # As the kubelet does for a class that is not set (pkg/apis/core/v1/helper/qos, GetPodQOS).
        qos_class = self.status.qos_class or ("Guaranteed" if self.spec.is_guaranteed else "")
        return qos_class == "Guaranteed" and container_name not in self.spec.sharing_cpus

    @property
    def _says_what_is_granted(self) -> bool:
        """Return whether the status has allocatedResources or resources, even odd ones."""
        status = self.status
        return (
            status.allocated_resources is not None
            or status.resources is not None
            or any(one.granted is not None for _, one in self.container_statuses)
            or any(
                path.startswith("status.") and ("esources" in path) for path in self.not_understood
            )
        )

    def granted(self, container_name: str) -> Granted | None:
        """Return what the kubelet granted a container, None if the status does not say."""
        if not container_name:
            return None  # an entry without a name belongs to no pod
        return next(
            (one.granted for _, one in self.container_statuses if one.name == container_name), None
        )

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
    kind: str | None = "PodList"


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
# msgspec refuses a list for half a surrogate pair in any text of it, the standard library does not.
_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_STATUSES = (
    "status.containerStatuses",
    "status.initContainerStatuses",
    "status.ephemeralContainerStatuses",
)
_CONTAINERS = ("spec.containers", "spec.initContainers", "spec.ephemeralContainers")
_RULES = Rules(
    identity=frozenset(("metadata", "metadata.name", "metadata.namespace", "metadata.uid")),
    counted=frozenset(_CONTAINERS),
    marked={"state": "-unknown"},
)


def decode_pod_list(body: bytes | bytearray, flaws: Flaws | None = None) -> tuple[Pod, ...]:
    """Return the pods of a PodList in JSON.

    A field that is not as core/v1 says is unknown, and takes nothing else away. An entry that
    is no pod, or a pod without name, namespace or UID, is left out. `flaws` counts and logs
    both. Raises `PodListMalformed`, saying where, if the list itself is broken, is no PodList,
    or has no pod that can be read.
    """
    try:
        found = _LISTS.decode(body)
    except _BROKEN as error:
        if _HALF_A_PAIR.search(body) and (document := _parsed(body)) is not None:
            return convert_pod_list(document, flaws)
        raise PodListMalformed(f"it is no PodList: {error} (of {len(body)} bytes)") from None

    def named(item: msgspec.Raw) -> str:
        return _named(lambda: _NAMES.decode(item))

    return _pods(found.kind, found.items, decode_pod, named, flaws or Flaws())


def _parsed(body: bytes | bytearray) -> object:
    """Return what is parsed, None for what is no JSON."""
    try:
        return load_leniently(body)
    except (ValueError, RecursionError):
        return None


def convert_pod_list(document: object, flaws: Flaws | None = None) -> tuple[Pod, ...]:
    """Return the pods of a PodList that was parsed from YAML. Raises as `decode_pod_list`."""
    if not isinstance(document, dict):
        raise PodListMalformed(f"it is no PodList: it holds no object, but {what_is(document)}")
    items = document.get("items", msgspec.UNSET)
    if not (items is None or items is msgspec.UNSET or isinstance(items, list)):
        raise PodListMalformed("it is no PodList: `items` is no list")
    kind = document.get("kind", "PodList")
    if not (kind is None or isinstance(kind, str)):
        raise PodListMalformed("it is no PodList: `kind` is no text")

    def named(item: object) -> str:
        return _named(lambda: msgspec.convert(item, _Named))

    return _pods(kind, items, convert_pod, named, flaws or Flaws())


def decode_pod(raw: bytes | msgspec.Raw, flaws: Flaws) -> Pod:
    """Return a pod in JSON; `flaws` counts its unknown fields. Raises `PodListMalformed`."""
    try:
        return _PODS.decode(raw)
    except _BROKEN:
        pass
    try:
        document = load_leniently(bytes(raw))
    except (ValueError, RecursionError) as error:
        raise PodListMalformed(f"it is no pod: {error}") from None
    return _fitted(document, flaws)


def convert_pod(document: object, flaws: Flaws) -> Pod:
    """Return a pod that was parsed. Otherwise as `decode_pod`."""
    try:
        pod = msgspec.convert(document, Pod)
    except (*_BROKEN, UnicodeEncodeError):
        return _fitted(document, flaws)
    return pod if _is_unicode(pod) else _fitted(document, flaws)


def _is_unicode(pod: Pod) -> bool:
    """Return whether no text of a pod has half a surrogate pair, which no answer could hold."""
    try:
        msgspec.json.encode(pod)
    except UnicodeEncodeError:
        return False
    except (TypeError, ValueError, OverflowError):
        return True  # an amount that JSON has no notation for
    return True


def _fitted(document: object, flaws: Flaws) -> Pod:
    """Return what fits of a pod. Raises `PodListMalformed`."""
    try:
        fitted, odd = fit(document, Pod, _RULES)
        pod = msgspec.convert(fitted, Pod)
    except (UnnamedEntry, *_BROKEN) as error:
        raise PodListMalformed(str(error)) from None
    # No name of a surrogate, which no answer could hold.
    paths = tuple(path.encode(errors="replace").decode() for path, _ in odd)
    # Nothing depends on a label; what else is left out counts as not understood.
    asked = tuple(path for path in paths if not path.startswith("metadata.labels["))
    if len(paths) > MAX_PATHS:
        paths = (*asked, *(path for path in paths if path.startswith("metadata.labels[")))
    msgspec.structs.force_setattr(pod, "not_understood", paths[:MAX_PATHS])
    msgspec.structs.force_setattr(pod, "has_more_not_understood", len(asked) > MAX_PATHS)
    if any(_hides_containers(path, found) for path, found in odd):
        # An unknown container may be the caller's: which one is not known.
        msgspec.structs.force_setattr(pod.spec, "planned", ())
    if odd:
        flaws.in_pod(pod.full_name, [f"{path} is {found}" for path, found in odd])
    return pod


def _hides_containers(path: str, found: str) -> bool:
    """Return whether a field that is unknown leaves open which containers there are."""
    if path in ("spec", "status"):
        return True
    inside = path.startswith((*_CONTAINERS, *_STATUSES))
    # A containerID that is null says that there is none yet.
    names = path.endswith((".name", "]")) or (path.endswith(".containerID") and found != "null")
    return path in (*_CONTAINERS, *_STATUSES) or (inside and names)


def _pods(
    kind: str | None,
    items: Iterable[Any] | msgspec.UnsetType | None,
    decode: Callable[[Any, Flaws], Pod],
    name: Callable[[Any], str],
    flaws: Flaws,
) -> tuple[Pod, ...]:
    # kubectl prints several objects as a List.
    if kind not in ("PodList", "List", None):
        raise PodListMalformed(f"it is a {kind[:64]!r}, not a PodList")
    if isinstance(items, msgspec.UnsetType):
        raise PodListMalformed("it is no PodList: it has no `items`")
    pods: list[Pod] = []
    bad: list[str] = []
    for number, item in enumerate(items or ()):
        try:
            pod = decode(item, flaws)
        except PodListMalformed as error:
            bad.append(f"item {number}{name(item)}: {error}")
            continue
        if pod.kind in ("", "Pod"):
            pods.append(pod)
        else:
            bad.append(f"item {number}: it is a {pod.kind[:64]!r}, not a Pod")
    flaws.of_list(bad, len(bad) + len(pods))
    if bad and not pods:
        raise PodListMalformed(f"it is no PodList: none of its pods can be read; {bad[0]}")
    return tuple(pods)


def _named(decode: Callable[[], _Named]) -> str:
    """Return " ('namespace/name')" of what is left out, "" if it has no name."""
    try:
        found = decode().metadata
    except (*_BROKEN, UnicodeEncodeError):
        return ""
    return f" ({f'{found.namespace}/{found.name}'!r:.256})"
