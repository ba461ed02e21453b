"""ResourceClaims and ResourceSlices of the API server, as far as the agent reports them. Pure.

resource.k8s.io v1, v1beta2 and v1beta1 (`k8s.io/api/resource`; KEP-4381, KEP-4817, KEP-5304). The
versions differ for the agent in one thing: in v1beta1 the attributes of a device are below
`basic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

import msgspec
from netutil.agent.parsers.claims import (
    MAX_ATTRIBUTES,
    MAX_VALUES,
    Attribute,
    Conditions,
    Integer,
    NetworkData,
    Text,
)
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import PodListMalformed

T = TypeVar("T")

VERSIONS = ("v1", "v1beta2", "v1beta1")
"""Of resource.k8s.io, the best first."""
MAX_DEVICES = 128
"""Of one claim, and of one slice. The API has at most 32 and 128."""
MAX_CONSUMERS = 1024
"""Of one claim. The API has at most 256 (ResourceClaimReservedForMaxSize), and may have more."""
_NODE_NAME = "metadata.name"
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Result(msgspec.Struct, frozen=True, gc=False):
    """DeviceRequestAllocationResult: `request` is "request/subrequest" with a prioritized list."""

    request: Text
    driver: Text
    pool: Text
    device: Text
    share_id: Text | None = msgspec.field(name="shareID", default=None)


class DeviceStatus(msgspec.Struct, frozen=True):
    """AllocatedDeviceStatus, without the driver's own `data`."""

    driver: Text
    pool: Text
    device: Text
    share_id: Text | None = msgspec.field(name="shareID", default=None)
    conditions: Conditions | None = None
    network_data: NetworkData | None = msgspec.field(name="networkData", default=None)


class Consumer(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """ResourceClaimConsumerReference: who may use a claim, a pod or a PodGroup."""

    resource: Text
    name: Text
    uid: Text
    api_group: Text = ""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceClaim. `problem` says why the other fields of the status are not known, else "".

    `nodes` are the nodes that the allocation is for, None for any.
    """

    namespace: str
    name: str
    uid: str
    is_allocated: bool = False
    nodes: frozenset[str] | None = None
    results: tuple[Result, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    reserved_for: tuple[Consumer, ...] = ()
    problem: str = ""

    def is_for(self, node: str) -> bool:
        """Return whether the claim is allocated, and may be so for a node."""
        return self.is_allocated and (self.nodes is None or node in self.nodes)


class SliceDevice(msgspec.Struct, frozen=True):
    """A device that a driver has published; `attributes` are by name, sorted."""

    name: str
    attributes: tuple[tuple[str, Attribute], ...]


class Slice(msgspec.Struct, frozen=True):
    """A ResourceSlice: a part of a pool, which consists of `slice_count` slices."""

    uid: str
    driver: str
    pool: str
    generation: int
    slice_count: int
    devices: tuple[SliceDevice, ...]


class _Metadata(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    uid: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    namespace: Annotated[str, msgspec.Meta(max_length=63)] = ""


class _Identity(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _Requirement(msgspec.Struct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] | None = None


class _Term(msgspec.Struct, frozen=True, rename="camel"):
    match_fields: tuple[_Requirement, ...] | None = None


class _NodeSelector(msgspec.Struct, frozen=True, rename="camel"):
    node_selector_terms: tuple[_Term, ...]


class _Results(msgspec.Struct, frozen=True):
    results: Annotated[tuple[Result, ...], msgspec.Meta(max_length=MAX_DEVICES)] | None = None


class _Allocation(msgspec.Struct, frozen=True, rename="camel"):
    devices: _Results | None = None
    node_selector: _NodeSelector | None = None


class _Status(msgspec.Struct, frozen=True):
    allocation: _Allocation | None = None
    devices: Annotated[tuple[DeviceStatus, ...], msgspec.Meta(max_length=MAX_DEVICES)] | None = None
    reserved_for: Annotated[tuple[Consumer, ...], msgspec.Meta(max_length=MAX_CONSUMERS)] | None = (
        msgspec.field(name="reservedFor", default=None)
    )


class _Claim(msgspec.Struct, frozen=True):
    status: _Status | None = None


_Attributes = Annotated[dict[Text, Attribute], msgspec.Meta(max_length=MAX_ATTRIBUTES)]


class _Basic(msgspec.Struct, frozen=True):
    attributes: _Attributes | None = None


class _Device(msgspec.Struct, frozen=True):
    name: Text
    attributes: _Attributes | None = None
    basic: _Basic | None = None


class _Pool(msgspec.Struct, frozen=True, rename="camel"):
    name: Text
    generation: Integer = 0
    resource_slice_count: Integer = 0


class _SliceSpec(msgspec.Struct, frozen=True):
    driver: Text
    pool: _Pool
    devices: Annotated[tuple[_Device, ...], msgspec.Meta(max_length=MAX_DEVICES)] | None = None


class _Slice(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _SliceSpec


class _List(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw] | None = None


class _ApiVersion(msgspec.Struct, frozen=True):
    version: str


class _ApiGroup(msgspec.Struct, frozen=True):
    versions: Annotated[list[_ApiVersion], msgspec.Meta(max_length=MAX_VALUES)]


_IDENTITIES = msgspec.json.Decoder(_Identity)
_CLAIMS = msgspec.json.Decoder(_Claim)
_SLICES = msgspec.json.Decoder(_Slice)
_LISTS = msgspec.json.Decoder(_List)
_GROUPS = msgspec.json.Decoder(_ApiGroup)


def decode_claim(raw: bytes | msgspec.Raw, flaws: Flaws) -> Claim:
    """Return a claim; one of which the status is not as the API says has a `problem`.

    Raises `PodListMalformed` for one without a name, a namespace or a UID.
    """
    del flaws  # a problem is part of the answer about the claim
    metadata = _identified(raw, "ResourceClaim")
    if not metadata.namespace:
        raise PodListMalformed("it is no ResourceClaim: it has no namespace")
    named = Claim(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid)
    try:
        status = _CLAIMS.decode(raw).status or _Status()
    except _BROKEN as error:
        problem = f"the claim cannot be read: {error}"
        return msgspec.structs.replace(named, is_allocated=True, problem=problem)
    allocation = status.allocation
    if allocation is None:
        return named
    return msgspec.structs.replace(
        named,
        is_allocated=True,
        nodes=_nodes(allocation.node_selector),
        results=(allocation.devices and allocation.devices.results) or (),
        devices=status.devices or (),
        reserved_for=status.reserved_for or (),
    )


def decode_slice(raw: bytes | msgspec.Raw, flaws: Flaws) -> Slice:
    """Return a slice. Raises `PodListMalformed` for one that is not as the API says."""
    del flaws
    try:
        found = _SLICES.decode(raw)
    except _BROKEN as error:
        raise PodListMalformed(f"it is no ResourceSlice: {error}") from None
    spec, pool = found.spec, found.spec.pool
    devices = tuple(SliceDevice(one.name, _attributes(one)) for one in spec.devices or ())
    uid, count = found.metadata.uid, pool.resource_slice_count
    return Slice(uid, spec.driver, pool.name, pool.generation, count, devices)


def decode_claims(body: bytes | bytearray, flaws: Flaws) -> tuple[Claim, ...]:
    """Return the claims of a list. Raises `PodListMalformed` for what is none."""
    return _decode_list(body, flaws, decode_claim, "ResourceClaimList")


def decode_slices(body: bytes | bytearray, flaws: Flaws) -> tuple[Slice, ...]:
    """Return the slices of a list. Raises `PodListMalformed` for what is none."""
    return _decode_list(body, flaws, decode_slice, "ResourceSliceList")


def decode_version(body: bytes | bytearray) -> str:
    """Return the best version of an APIGroup that the agent reads, "" for none.

    Raises `PodListMalformed` for what is no APIGroup.
    """
    try:
        served = {one.version for one in _GROUPS.decode(body).versions}
    except _BROKEN as error:
        raise PodListMalformed(f"it is no APIGroup: {error}") from None
    return next((version for version in VERSIONS if version in served), "")


def _identified(raw: bytes | msgspec.Raw, kind: str) -> _Metadata:
    try:
        return _IDENTITIES.decode(raw).metadata
    except _BROKEN as error:
        raise PodListMalformed(f"it is no {kind}: {error}") from None


def _decode_list(
    body: bytes | bytearray,
    flaws: Flaws,
    decode: Callable[[msgspec.Raw, Flaws], T],
    kind: str,
) -> tuple[T, ...]:
    """Return what can be read, and count the rest. A list without `items` is empty."""
    try:
        items = _LISTS.decode(body).items or []
    except _BROKEN as error:
        raise PodListMalformed(f"it is no {kind}: {error}") from None
    found, left_out = [], []
    for number, item in enumerate(items):
        try:
            found.append(decode(item, flaws))
        except PodListMalformed as error:
            left_out.append(f"items[{number}]: {error}")
    if items and not found:
        raise PodListMalformed(f"nothing of its {len(items)} entries can be read: {left_out[0]}")
    flaws.left_out(left_out, len(items))
    return tuple(found)


def _nodes(selector: _NodeSelector | None) -> frozenset[str] | None:
    """Return the nodes that a selector names, None where one of its terms names none.

    core/v1: terms are alternatives, the requirements of a term hold together.
    """
    if selector is None:
        return None
    nodes: set[str] = set()
    for term in selector.node_selector_terms:
        named = [
            frozenset(one.values or ())
            for one in term.match_fields or ()
            if one.key == _NODE_NAME and one.operator == "In"
        ]
        if not named:
            return None
        nodes |= frozenset.intersection(*named)
    return frozenset(nodes)


def _attributes(device: _Device) -> tuple[tuple[str, Attribute], ...]:
    found = device.attributes or (device.basic and device.basic.attributes) or {}
    return tuple(sorted(found.items(), key=_first))


def _first(entry: tuple[str, Attribute]) -> str:
    return entry[0]


class Pool(msgspec.Struct, frozen=True):
    """The devices of a pool by name, of its highest generation.

    `slice_count` is of how many slices that generation is, 0 if no slice says so; `slices` is how
    many of these are there.
    """

    generation: int
    slice_count: int
    slices: int
    devices: dict[str, SliceDevice]

    @property
    def is_complete(self) -> bool:
        """Return whether the driver has published all of the generation."""
        return self.slices >= self.slice_count


def newest(slices: Iterable[Slice]) -> dict[tuple[str, str], Pool]:
    """Return the pools by driver and name.

    resource.k8s.io, ResourceSlice: a consumer uses the highest generation of a pool, and ignores
    all others; the count in each slice says whether the driver has published all of it.
    """
    pools: dict[tuple[str, str], Pool] = {}
    for one in slices:
        key = one.driver, one.pool
        pool = pools.get(key)
        if pool is None or one.generation > pool.generation:
            pool = Pool(one.generation, 0, 0, {})
        if one.generation == pool.generation:
            devices = pool.devices | {device.name: device for device in one.devices}
            count = max(pool.slice_count, one.slice_count)
            pools[key] = Pool(one.generation, count, pool.slices + 1, devices)
    return pools
