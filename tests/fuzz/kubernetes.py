"""Input of the API server, the kubelet and its plugins: pod lists, annotations, PodResources."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import msgspec
from netutil.agent.collect.results import Allocated, GivenDevices, Interfaces
from netutil.agent.errors import AgentError, FailedPrecondition, Unavailable
from netutil.agent.facts.interfaces import merge
from netutil.agent.facts.network import Networks, Source
from netutil.agent.kubelet.podresources import model as resources
from netutil.agent.kubelet.podsapi.model import decode_pod
from netutil.agent.messages import convert, convert_devices
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.parsers.device_metadata import (
    DeviceMetadata,
    DeviceMetadataMalformed,
    DeviceMetadataTooLarge,
    parse_device_metadata,
)
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    MAX_VARIABLE_LENGTH,
    AllocatedDevice,
    parse_devices,
    parse_environment,
)
from netutil.agent.parsers.network_status import NetworkStatus, parse_network_status
from netutil.agent.parsers.plugin_devices import (
    af_xdp_devices_of_both,
    device_variables,
    devices_of_both,
    parse_af_xdp_devices,
    parse_qat_devices,
)
from netutil.agent.parsers.quantity import MAX_BYTES, parse_bytes
from netutil.agent.parsers.userspace_cni import UserspaceInterface, parse_userspace
from netutil.agent.pods.http.bounded import read_body
from netutil.agent.pods.index import index
from netutil.agent.pods.model import Pod, PodListMalformed, convert_pod_list, decode_pod_list
from netutil.agent.pods.sources.file import FileSource
from netutil.podresources.v1 import podresources_pb2
from netutil.v1alpha import netutil_pb2 as api
from urllib3 import HTTPResponse

from tests.fuzz.kernel import RECORDED
from tests.fuzz.target import Target
from tests.support import annotations as recorded_annotations
from tests.support import device_metadata as recorded_metadata
from tests.support.fakes.podresources import pod as resources_of_pod
from tests.unit.kubelet.podsapi.test_model import WHOLE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ASKED = resources.Asked(1.0, NOW)
_JSON = (b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"1e9", b'"', b"NaN", b"\\ud800")
_MAX_BODY = 16384


def _use(pods: tuple[Pod, ...]) -> None:
    """Do with the pods what the agent does: every property, every look-up, every answer."""
    known = index(pods, NOW)
    assert len(known.pods) <= len(pods)
    for pod in pods:
        for status_id in (None, *(status.id for _, status in pod.container_statuses)):
            try:
                match = known.find(pod.cgroup_uid, status_id)
            except FailedPrecondition:
                continue
            assert match is not None
            assert match.started_by.tzinfo is not None
            message = convert.pod(match.decided(bool), status_id or "")
            api.PodResponse.FromString(message.SerializeToString())
        for _, requests, limits in pod.spec.hugepages:
            for quantity in (*requests.values(), *limits.values()):
                try:
                    parse_bytes(quantity, read="")
                except FailedPrecondition:
                    continue


def _list_holds(data: bytes, found: tuple[Pod, ...]) -> None:
    _use(found)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # msgspec skips the content of fields that are not read
    if not _has_repeated_keys(data):
        assert convert_pod_list(document) == found


def _has_repeated_keys(data: bytes) -> bool:
    """A key twice: json merges nothing, msgspec decodes both; which counts is not promised."""
    repeated = []

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        repeated.append(len(dict(found)) < len(found))
        return dict(found)

    json.loads(data, object_pairs_hook=pairs)
    return any(repeated)


def _file(data: bytes) -> tuple[Pod, ...]:
    descriptor = os.memfd_create("pods")
    try:
        os.write(descriptor, data)
        return FileSource(f"/proc/self/fd/{descriptor}").fetch()
    finally:
        os.close(descriptor)


def _file_holds(data: bytes, found: tuple[Pod, ...]) -> None:
    del data
    _use(found)


def _body(data: bytes) -> bytearray:
    headers = {"Content-Encoding": "gzip"} if data[:1] == b"\x1f" else {}
    response = HTTPResponse(io.BytesIO(data), headers=headers, preload_content=False)
    return read_body(response, _MAX_BODY)


def _body_holds(data: bytes, found: bytearray) -> None:
    assert len(found) <= _MAX_BODY
    assert found == (gzip.decompress(data) if data[:1] == b"\x1f" else data)


def _networks(data: bytes) -> tuple[NetworkStatus, ...]:
    return parse_network_status(data.decode(errors="surrogatepass"), read="annotation")


def _networks_hold(data: bytes, found: tuple[NetworkStatus, ...]) -> None:
    message = api.NetworkStatusResponse(status=[convert.network_status(one) for one in found])
    sent = message.SerializeToString()
    assert len(sent) <= 16 * len(data) + 4096
    back = api.NetworkStatusResponse.FromString(sent)
    assert [one.interface for one in back.status] == [one.interface for one in found]
    try:
        other = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return  # msgspec bounds numbers otherwise
    named = [(one.get("name") or "", one.get("interface") or "") for one in other]
    assert named == [(one.name, one.interface) for one in found]
    _interfaces(Networks(found, Source.NETWORK_STATUS), (), len(data))


def _interfaces(
    networks: Networks | None, allocated: tuple[AllocatedDevice, ...], length: int
) -> None:
    """Write the answer to GetInterfaces, and bound it."""
    merged = merge(networks, (), allocated, lambda _: None)
    found = Interfaces(merged, networks, None, False, None, Allocated(allocated), None)
    answer = convert_devices.interfaces(found).SerializeToString()
    most = 32 * length + MAX_DEVICES * (MAX_VARIABLE_LENGTH + 128)
    assert len(answer) <= most, f"an answer of {len(answer)} bytes"
    api.InterfacesResponse.FromString(answer)


def _userspace(data: bytes) -> tuple[UserspaceInterface, ...]:
    text, _, directory = data.decode(errors="replace").partition("\x01")
    return parse_userspace(text, directory, read="annotation")


def _userspace_holds(data: bytes, found: tuple[UserspaceInterface, ...]) -> None:
    del data
    assert len({one.interface for one in found}) == len(found)
    assert all(one.device_info.type in one.device_info.devices for one in found)


def _devices(data: bytes) -> tuple[AllocatedDevice, ...]:
    variables = parse_environment(data).variables
    found = parse_devices(variables)
    # A login shell gets the devices that the container was started with, each once.
    shells, others = devices_of_both({}, device_variables(variables))
    assert {one.name for one in shells} == {one.name for one in found}
    assert others == tuple(replace(one, from_start=True) for one in parse_qat_devices(variables))
    links = af_xdp_devices_of_both({}, device_variables(variables))
    assert links == tuple(replace(one, from_start=True) for one in parse_af_xdp_devices(variables))
    return found


def _devices_hold(data: bytes, found: tuple[AllocatedDevice, ...]) -> None:
    for one in found:
        assert normalise_pci_address(one.name) == (one.pci_address or None)
        assert "/" not in one.pci_address
        assert one.info is None or not one.problem
    _interfaces(None, found, len(data))


def _quantity(data: bytes) -> int:
    return parse_bytes(data.decode(errors="replace"), read="limit")


def _quantity_holds(data: bytes, found: int) -> None:
    text = data.decode()
    powers = {f"{unit}i": Decimal(2) ** (10 * n) for n, unit in enumerate("KMGTPE", 1)}
    powers |= {unit: Decimal(10) ** (3 * n) for n, unit in enumerate("kMGTPE", 1)}
    powers |= {unit: Decimal(10) ** (-3 * n) for n, unit in enumerate("mun", 1)}
    suffix = next((one for one in powers if text.endswith(one)), "")
    digits, _, exponent = text.removesuffix(suffix).lower().partition("e")
    try:
        number = Decimal(digits) * powers.get(suffix, Decimal(1))
        number = number.scaleb(max(-200, min(200, int(exponent or 0))))
    except InvalidOperation:
        raise AssertionError(f"{text!r} is no quantity") from None
    assert 0 <= found <= MAX_BYTES
    if number.adjusted() > -25:  # Decimal counts 28 digits
        assert found == math.ceil(number), (found, number)


def _resource_list(data: bytes) -> Mapping[resources.Key, resources.PodEntry]:
    return resources.decode_list(data, _ASKED)


def _resources_hold(data: bytes, found: Mapping[resources.Key, resources.PodEntry]) -> None:
    message = podresources_pb2.ListPodResourcesResponse.FromString(data)
    for pod in message.pod_resources:
        for container in pod.containers:
            devices = list(container.devices)
            del container.devices[:]
            container.devices.extend(reversed(devices))
            for device in container.devices:
                device.device_ids[:] = list(device.device_ids)[::-1]
    again = resources.decode_list(message.SerializeToString(), _ASKED)
    assert again == found, "the kubelet's order shows"
    for entry in found.values():
        for one in entry.containers.values():
            answer = convert_devices.resources(one, GivenDevices()).SerializeToString()
            # Each device of a resource has a NUMA node.
            assert len(answer) <= len(data) * (len(data) + 64)


def _resource_pod(data: bytes) -> resources.PodEntry:
    return resources.decode_pod(data, ("shop", "web"), _ASKED)


def _pushed(data: bytes) -> Pod:
    return decode_pod(data)


def _pushed_holds(data: bytes, found: Pod) -> None:
    _use((found,))
    try:
        again = msgspec.json.decode(msgspec.json.encode(found.metadata), type=type(found.metadata))
    except msgspec.ValidationError as error:
        raise AssertionError(f"JSON could not have said this: {error}") from error
    assert again == found.metadata


def _metadata_holds(data: bytes, found: DeviceMetadata) -> None:
    msgspec.json.encode(found)  # an answer can hold each text
    assert all(name.encode() in data or b"\\" in data for name in _names_in(found))


def _names_in(found: DeviceMetadata) -> list[str]:
    devices = [device for request in found.requests for device in request.devices]
    return [name for device in devices for name, _ in device.attributes or ()]


def targets() -> tuple[Target, ...]:
    lists = tuple(json.dumps(recorded["kubelet"]).encode() for recorded in RECORDED)
    one = json.dumps({"kind": "PodList", "items": RECORDED[0]["kubelet"]["items"][:1]}).encode()
    small = (
        b'{"items":[{"metadata":{"name":"a","uid":"u"},"status":{"containerStatuses":[{"name":"c",'
        b'"containerID":"x://i","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}]}',
        b'{"items":[{"metadata":{"name":"a","uid":"u"},"spec":{"containers":[{"name":"c",'
        b'"resources":{"limits":{"cpu":"500m","hugepages-2Mi":"64Mi"}}}]}}]}',
    )
    yaml = (
        b"kind: PodList\nitems:\n- metadata: {name: a, uid: u}\n  spec:\n    containers:\n"
        b"    - name: c\n      resources: {limits: {cpu: 2}}\n",
    )
    status = tuple(text.encode() for text, _ in recorded_annotations.REAL_WORLD.values())
    keys = tuple(
        b'"%s"' % key
        for key in (
            b"name",
            b"interface",
            b"ips",
            b"mac",
            b"default",
            b"dns",
            b"mtu",
            b"device-info",
            b"type",
            b"pci",
            b"pci-address",
            b"gateway",
        )
    )
    device = b'"0000:3b:02.0"'
    environment = (
        b"PCIDEVICE_X=0000:3b:02.0,0000:3b:02.1\0PCIDEVICE_X_INFO={" + device + b':{"generic":{}}}',
        b"PCIDEVICE_A_INFO=0000:3b:02.0\0PCIDEVICE_Y=mlx5_core.sf.4\0PCIDEVICE_Y_INFO=[1]",
        b"AFXDP_DEVICES=ens1f0 ens1f1\0QAT0=0000:3b:02.0",
        b"PCIDEVICE_X="
        + b",".join([b"0000:3b:02.0"] * 200)
        + b"\0PCIDEVICE_X_INFO={"
        + device
        + b':{"k":"'
        + b"v" * 500
        + b'"}}',
    )
    whole = podresources_pb2.ListPodResourcesResponse(pod_resources=[resources_of_pod()])
    answer = podresources_pb2.GetPodResourcesResponse(pod_resources=resources_of_pod())
    wrong_list, wrong = (PodListMalformed,), (resources.PodResourcesMalformed,)
    recorded = tuple(bytes.fromhex(recorded["pod_resources"]) for recorded in RECORDED)
    fields: tuple[bytes, ...] = (
        b'"uid"',
        b'"metadata"',
        b'"items"',
        b'"annotations"',
        b'"startedAt"',
        b'"kind"',
    )
    fields += (b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59")
    return (
        Target(
            "pod-list",
            decode_pod_list,
            (*small, one, *lists),
            wrong_list,
            _list_holds,
            (*_JSON, *fields),
            largest_bytes=65536,
        ),
        Target(
            "pod-list-file",
            _file,
            (*yaml, *small, one),
            (Unavailable,),
            _file_holds,
            (b"&a ", b"*a", b"<<: ", b"- ", b"!!set ", b"\n  ", b"kind: ", b"? "),
        ),
        Target(
            "body",
            _body,
            (gzip.compress(b"{}" * 50), b"{}", gzip.compress(bytes(10000))),
            wrong_list,
            _body_holds,
            (b"\x1f\x8b",),
            most_times=1100,
        ),
        Target(
            "network-status",
            _networks,
            status,
            (AgentError, UnicodeDecodeError),
            _networks_hold,
            (*_JSON, *keys),
        ),
        Target(
            "userspace",
            _userspace,
            (recorded_annotations.USERSPACE.encode() + b"\x01/var/lib/cni/",),
            holds=_userspace_holds,
            words=(*_JSON, b'"iftype"', b'"memif"', b'"socketfile"'),
            # Each path contains the directory.
            most_times=8192,
        ),
        Target(
            "devices",
            _devices,
            environment,
            holds=_devices_hold,
            words=(*_JSON, b"PCIDEVICE_", b"_INFO", b"AFXDP_DEVICES", b"=", b"\0", device, b","),
            # Each device has the name of the variable, and a problem.
            most_more=MAX_DEVICES * (MAX_VARIABLE_LENGTH + 128),
        ),
        Target(
            "quantity",
            _quantity,
            (b"2Gi", b"1.5G", b"1e9", b"500m", b"+.5Ki", b"12E"),
            holds=_quantity_holds,
            words=(b"Ki", b"Ei", b"e-", b"n", b".", b"9" * 30),
        ),
        Target(
            "pod-resources-list",
            _resource_list,
            (whole.SerializeToString(), *recorded),
            wrong,
            _resources_hold,
        ),
        Target("pod-resources-pod", _resource_pod, (answer.SerializeToString(),), wrong),
        Target(
            "device-metadata",
            parse_device_metadata,
            (
                recorded_metadata.both(recorded_metadata.vf(network=recorded_metadata.NETWORK)),
                recorded_metadata.both(
                    recorded_metadata.device(
                        attributes={"a": {"int": 1}, "b": {"bools": [True]}, "c": {"version": "1"}}
                    )
                ),
            ),
            (DeviceMetadataMalformed, DeviceMetadataTooLarge),
            _metadata_holds,
            (*_JSON, b'"apiVersion"', b'"requests"', b'"int"', b'"strings"', b'"ips"'),
            # Each field of an attribute counts, those that are not set as well.
            most_times=8,
        ),
        Target("pods-api", _pushed, (WHOLE.SerializeToString(),), wrong_list, _pushed_holds),
    )
