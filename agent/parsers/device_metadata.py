"""Parses the device metadata that drivers of ResourceClaims write on the node (KEP-5304). Pure.

Source: k8s.io/dynamic-resource-allocation/api/metadata and its writer, kubeletplugin/metadata.go. A
file is a stream of JSON objects, the same data once for each version, newest first:

    {"kind": "DeviceMetadata", "apiVersion": "metadata.resource.k8s.io/v1beta1",
     "metadata": {"name": "nic-x7k2p", "namespace": "shop", "uid": "0b1c…", "generation": 2},
     "podClaimName": "nic", "requests": [{"name": "vf", "devices": [
       {"driver": "sriov.example.com", "pool": "node-1", "name": "0000-3b-02-1",
        "attributes": {"resource.kubernetes.io/pciBusID": {"string": "0000:3b:02.1"}},
        "networkData": {"interfaceName": "net1", "ips": ["10.1.0.5/24"],
                        "hardwareAddress": "02:00:00:00:00:05"}}]}]}
    {"kind": "DeviceMetadata", "apiVersion": "metadata.resource.k8s.io/v1alpha1", …}

As in `DecodeMetadataFromStream`, the first object of a known version counts, objects of other
versions are skipped, and whatever else is wrong before it is an error.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

import msgspec
from netutil.agent.parsers.claims import (
    MAX_ATTRIBUTES,
    MAX_TEXT,
    MAX_VALUES,
    Attribute,
    ClaimDevice,
    NetworkData,
)
from netutil.agent.parsers.json_value import what_is

VERSIONS = ("metadata.resource.k8s.io/v1beta1", "metadata.resource.k8s.io/v1alpha1")
KIND = "DeviceMetadata"
MAX_BYTES = 1024 * 1024
"""Of one file."""
MAX_OBJECTS = 16
"""Of one file that are looked at: as many versions."""
MAX_DEVICES = 128
"""Of one file. A claim has at most 32 (resource.k8s.io, AllocationResultsMaxSize)."""
_MAX_DIGITS = 300
"""Of an integer; Python needs time that grows with their square."""
_MAX_SHOWN = 64


class DeviceMetadataMalformed(ValueError):
    """A file is no device metadata. The text says why: "it is …".

    `may_be_partial`: so a file looks that is being written.
    """

    def __init__(self, why: str, *, may_be_partial: bool = False) -> None:
        super().__init__(why)
        self.may_be_partial = may_be_partial


class DeviceMetadataTooLarge(ValueError):
    """A file has more than the agent takes. The text says of what."""


class MetadataRequest(msgspec.Struct, frozen=True, kw_only=True):
    """DeviceMetadataRequest: `name` is "request/subrequest" with a prioritized list.

    `drivers` are those that the devices name, each once.
    """

    name: str
    drivers: tuple[str, ...] = ()
    devices: tuple[ClaimDevice, ...] = ()


class DeviceMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver says of requests of one claim.

    `generation` grows with each change. `pod_claim` is the name in the pod's spec of a claim that
    was made from a template, else "".
    """

    claim_name: str
    claim_namespace: str
    claim_uid: str
    generation: int
    pod_claim: str
    requests: tuple[MetadataRequest, ...]


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class _Device(msgspec.Struct, frozen=True, rename="camel"):
    driver: str
    pool: str
    name: str
    attributes: dict[str, dict[str, Any]] | None = None
    network_data: dict[str, Any] | None = None


class _Request(msgspec.Struct, frozen=True):
    name: str
    devices: tuple[_Device, ...] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Metadata
    pod_claim_name: str | None = None
    requests: tuple[_Request, ...] | None = None


def parse_device_metadata(body: bytes) -> DeviceMetadata:
    """Return the first object of a known version.

    Raises `DeviceMetadataMalformed` and `DeviceMetadataTooLarge`.
    """
    if len(body) > MAX_BYTES:
        raise DeviceMetadataTooLarge(f"more than {MAX_BYTES} bytes")
    try:
        found = _metadata(msgspec.convert(_first_known(body), _Document))
        msgspec.json.encode(found)  # half a surrogate pair, which no answer could hold
    except msgspec.ValidationError as error:
        raise DeviceMetadataMalformed(f"it is no {KIND}: {error}") from None
    except UnicodeEncodeError:
        raise DeviceMetadataMalformed("it has text that is not Unicode") from None
    return found


def _first_known(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise DeviceMetadataMalformed("it is not UTF-8", may_be_partial=True) from None
    skipped: list[str] = []
    position = _skip_space(text, 0)
    while position < len(text):
        if len(skipped) == MAX_OBJECTS:
            raise DeviceMetadataTooLarge(f"more than {MAX_OBJECTS} objects")
        document, position = _object_at(text, position)
        version = _version_of(document)
        if version in VERSIONS:
            kind = document.get("kind")
            if kind != KIND:
                raise DeviceMetadataMalformed(f"its kind is {_shown(kind)}, not {KIND!r}")
            return document
        skipped.append(version)
        position = _skip_space(text, position)
    if not skipped:
        raise DeviceMetadataMalformed("it is empty", may_be_partial=True)
    # A later object may be on its way.
    versions = ", ".join(one[:_MAX_SHOWN] for one in skipped)
    raise DeviceMetadataMalformed(f"it has no known version, but {versions}", may_be_partial=True)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _object_at(text: str, position: int) -> tuple[dict[str, Any], int]:
    """Return the object that begins at a position, and where it ends."""
    try:
        document, end = _DECODER.raw_decode(text, position)
    except RecursionError:
        raise DeviceMetadataMalformed("it is nested too deeply") from None
    except ValueError as error:
        raise DeviceMetadataMalformed(f"it is no JSON: {error}", may_be_partial=True) from None
    if not isinstance(document, dict):
        raise DeviceMetadataMalformed(f"it holds {what_is(document)}, not an object")
    return document, end


def _version_of(document: dict[str, Any]) -> str:
    version = document.get("apiVersion")
    if not isinstance(version, str) or not version:
        raise DeviceMetadataMalformed(f"its apiVersion is {_shown(version)}")
    return version


def _shown(value: object) -> str:
    return repr(value)[:_MAX_SHOWN] if isinstance(value, str) else what_is(value)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_constant)


def _metadata(found: _Document) -> DeviceMetadata:
    requests = found.requests or ()
    # A device costs some bytes, and a request without one as well.
    if sum(len(one.devices or ()) or 1 for one in requests) > MAX_DEVICES:
        raise DeviceMetadataTooLarge(f"more than {MAX_DEVICES} devices")
    return DeviceMetadata(
        claim_name=found.metadata.name,
        claim_namespace=found.metadata.namespace,
        claim_uid=found.metadata.uid,
        generation=found.metadata.generation,
        pod_claim=found.pod_claim_name or "",
        requests=tuple(
            MetadataRequest(
                name=one.name,
                drivers=tuple(dict.fromkeys(device.driver for device in one.devices or ())),
                devices=tuple(map(_device, one.devices or ())),
            )
            for one in requests
        ),
    )


def _device(found: _Device) -> ClaimDevice:
    attributes = found.attributes or {}
    if len(attributes) > MAX_ATTRIBUTES:
        raise DeviceMetadataTooLarge(f"more than {MAX_ATTRIBUTES} attributes of a device")
    known = ((name, _attribute(name, attributes[name])) for name in sorted(attributes))
    return ClaimDevice(
        pool=found.pool,
        name=found.name,
        attributes=tuple((name, one) for name, one in known if one is not None),
        network_data=_network_data(found.network_data),
    )


def _attribute(name: str, found: dict[str, Any]) -> Attribute | None:
    """Return the value, None for one of a type that a later version of the API has."""
    for value in found.values():
        _ensure_bounded(value, "values of an attribute")
    try:
        attribute = msgspec.convert(found, Attribute)
    except msgspec.ValidationError as error:
        raise DeviceMetadataMalformed(f"its attribute {name[:_MAX_SHOWN]!r}: {error}") from None
    values = [
        value
        for field in Attribute.__struct_fields__
        if (value := getattr(attribute, field)) is not None and value != ()
    ]
    if len(values) > 1 or not found:
        why = f"its attribute {name[:_MAX_SHOWN]!r} has {len(values)} values, not one"
        raise DeviceMetadataMalformed(why)
    return attribute if values else None


def _network_data(found: dict[str, Any] | None) -> NetworkData | None:
    if found is None:
        return None
    for value in found.values():
        _ensure_bounded(value, "addresses of a device")
    return msgspec.convert(found, NetworkData)


def _ensure_bounded(value: object, what: str) -> None:
    """Raise `DeviceMetadataTooLarge` for a list or a text beyond the bounds of the values."""
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MAX_VALUES:
        raise DeviceMetadataTooLarge(f"more than {MAX_VALUES} {what}")
    if any(isinstance(one, str) and len(one) > MAX_TEXT for one in texts):
        raise DeviceMetadataTooLarge(f"a text of more than {MAX_TEXT} characters")


# msgspec examines a type at its first use, and crashes if two threads do so at once (0.22: SIGSEGV
# in _core): so each type is examined here.
_EXAMINED = tuple(map(msgspec.json.Decoder, (_Document, Attribute, NetworkData)))
