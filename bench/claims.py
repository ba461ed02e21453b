"""What the agent holds of 250 pods that each have a ResourceClaim, by the source of the claims.

The pods are those of the lab, each with a connection and an idle `Watch`. The files are written as
drivers write them, and the API server is the double of the tests: TLS, lists and watches as real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from netutil.podresources.v1 import podresources_pb2 as v1
from netutil.v1alpha import netutil_pb2

from bench import node
from bench.holding import settled_cost
from bench.load_generator import LoadGenerator
from bench.rows import Row
from tests.support.device_metadata import DRIVER, both, vf
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.claims_server import (
    ClaimsServer,
    claims_server,
    condition,
    device_name,
    status_of,
)
from tests.support.nodes.dpdk_node import podresources
from tests.support.nodes.dra_tree import DraTree

PODS = 250
_NAMESPACE = "shop"
_READY_SECONDS = 60.0
_SOURCES = {
    "off": "no claims are read",
    "node": "claims by the drivers' files",
    "apiserver": "claims by the files and the API server",
    "both": "the same, and pods by the API server",
}

_API_SERVER = ("apiserver", "both")


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the memory of the agent for each source of claims."""
    seconds = 1.0 if quick else 5.0
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        kubelet = stack.enter_context(podresources(lab.directory / "kubelet.sock"))
        containers = [_pod(lab, number) for number in range(PODS)]
        kubelet.pods = [_allocated(number) for number in range(PODS)]
        tree = DraTree(lab.directory / "kubelet")
        for number in range(PODS):
            _write(tree, number)
        server = stack.enter_context(claims_server(lab.directory))
        _store(server, lab)
        flags = (f"--pod-resources={kubelet.path}", f"--kubelet-root={tree.kubelet_root}")
        for source, what in _SOURCES.items():
            own = server.flags if source in _API_SERVER else (f"--resource-claims={source}",)
            pod_source = "apiserver" if source == "both" else None
            agent = lab.agent("--log-level=warning", *flags, *own, pod_source=pod_source)
            yield _measured(lab, agent, containers, source, what, seconds)
            agent.stop()


def _measured(
    lab: Lab,
    agent: LabAgent,
    containers: Sequence[LabContainer],
    source: str,
    what: str,
    seconds: float,
) -> Row:
    node.wait_for_socket(lab.socket)
    with ExitStack() as stack:
        for container in containers:
            stack.enter_context(LoadGenerator(container)).ask("watch", "Watch", 1)
        _wait_for_claims(containers[-1], source)
        cost = settled_cost(agent, len(containers), seconds)
    return Row(
        f"claims.{source}.memory",
        f"memory of the agent (PSS), {PODS} pods with a claim and a `Watch` each, {what}",
        "absolute",
        cost.memory_mib,
        "MiB",
        note=cost.note,
    )


def _pod(lab: Lab, number: int) -> LabContainer:
    """Start a pod whose container refers to request vf of a claim of its own."""
    made = lab.pod(f"web-{number}", namespace=_NAMESPACE)
    made.spec = {"resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "vf"}]}
    status = {"name": "nic", "resourceClaimName": _claim(number)}
    made.status = {"resourceClaimStatuses": [status]}
    container = made.container("app")
    container.resources = {"claims": [{"name": "nic", "request": "vf"}]}
    return container


def _claim(number: int) -> str:
    return f"web-{number}-nic-x7k2p"


def _address(number: int) -> str:
    return f"0000:3b:{number // 8 + 2:02x}.{number % 8}"


def _uid(number: int) -> str:
    return f"0b1c2d3e-0000-4000-8000-{number:012x}"


def _network(number: int) -> dict[str, object]:
    mac = f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"
    ips = [f"192.0.{number // 250}.{number % 250}/16"]
    return {"interfaceName": "net1", "ips": ips, "hardwareAddress": mac}


def _allocated(number: int) -> v1.PodResources:
    """Return what the kubelet's PodResources say of a pod."""
    resource = v1.ClaimResource(
        cdi_devices=[v1.CDIDevice(name=f"k8s.example.com/vf=claim-vf-{number}")],
        driver_name=DRIVER,
        pool_name="node-1",
        device_name=device_name(_address(number)),
    )
    claim = v1.DynamicResource(
        claim_name=_claim(number), claim_namespace=_NAMESPACE, claim_resources=[resource]
    )
    container = v1.ContainerResources(name="app", dynamic_resources=[claim])
    return v1.PodResources(name=f"web-{number}", namespace=_NAMESPACE, containers=[container])


def _write(tree: DraTree, number: int) -> None:
    """Write the driver's file of a claim."""
    device = vf(_address(number), network=_network(number))
    body = both(device, claim=_claim(number), pod_claim="nic", uid=_uid(number))
    tree.write_now(body, claim=_claim(number))


def _store(server: ClaimsServer, lab: Lab) -> None:
    """Store the pods, the claims with a condition of each device, and the slices of the node."""
    for one in lab.pod_list()["items"]:
        server.pods.put(one)
    for number, pod in enumerate(lab.pods):
        device = device_name(_address(number))
        status = status_of(device, networkData=_network(number), conditions=[condition("True")])
        reserved = [{"resource": "pods", "name": pod.name, "uid": pod.uid}]
        server.put(
            *(_claim(number), device), uid=_uid(number), devices=[status], reservedFor=reserved
        )
    server.publish(*map(_address, range(PODS)))


def _wait_for_claims(container: LabContainer, source: str) -> None:
    """Return when a pod gets what the source has of its claim. TimeoutError after a minute."""
    until = time.monotonic() + _READY_SECONDS
    while not _has_claims(container, source):
        if time.monotonic() > until:
            raise TimeoutError(f"no claim of {source} in the answer")
        time.sleep(0.5)


def _has_claims(container: LabContainer, source: str) -> bool:
    body = node.ask_each_method(container, ("GetResource",))["GetResource"]
    answer = netutil_pb2.ResourceResponse.FromString(body)
    if source == "off":
        return answer.claims_error.reason == "RESOURCE_CLAIMS_OFF"
    devices = [device for claim in answer.claims for device in claim.devices]
    if not devices or answer.HasField("claims_error"):
        return False
    return source == "node" or bool(devices[0].conditions)
