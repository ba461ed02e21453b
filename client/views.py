"""Which table shows which answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from netutil.client.results import (
    CPU,
    DNS,
    DeviceInfo,
    Environment,
    Network,
    NetworkStatus,
    NodeContainer,
    NodePod,
    NodePods,
    Pod,
)
from netutil.client.tables import Table

_NOTHING = "-"


def table_of(answer: object) -> Table:
    """The table of an answer of this client."""
    match answer:
        case CPU():
            return _cpu(answer)
        case Environment():
            return _environment(answer)
        case NetworkStatus():
            return _network_status(answer)
        case Pod():
            return _pod(answer)
        case NodePods():
            return _node_pods(answer)
    raise TypeError(type(answer))


def rfc3339(time: datetime) -> str:
    """A time in UTC as text ("2026-01-31T12:00:00Z")."""
    return time.isoformat().replace("+00:00", "Z")


def _cpu(cpu: CPU) -> Table:
    rows = (
        ("cpuset", cpu.cpuset or _NOTHING),
        ("effective_cpus", cpu.effective_cpus or _NOTHING),
        ("affinity", _or_nothing(cpu.affinity)),
        ("quota", _quota(cpu)),
        ("shares", _or_nothing(cpu.shares)),
        ("weight", _or_nothing(cpu.weight)),
        ("cgroup_version", str(cpu.cgroup_version)),
    )
    return Table("CPU", (), rows)


def _quota(cpu: CPU) -> str:
    if cpu.quota_cores is None:
        return "no limit"
    cores = f"{cpu.quota_cores:g} CPUs"
    if cpu.quota_microseconds is None or cpu.period_microseconds is None:
        return cores
    return f"{cores} ({cpu.quota_microseconds} us in {cpu.period_microseconds} us)"


def _environment(environment: Environment) -> Table:
    notes = []
    if environment.replaced_entries:
        notes.append(f"entries with bytes that are not UTF-8: {environment.replaced_entries}")
    if environment.skipped_entries:
        notes.append(f'entries without "=" left out: {environment.skipped_entries}')
    return Table("ENVIRONMENT", ("NAME", "VALUE"), tuple(environment.envs.items()), tuple(notes))


def _network_status(networks: NetworkStatus) -> Table:
    headers = ("NAME", "INTERFACE", "MAC", "IPS", "DEFAULT", "MTU", "GATEWAY", "DNS", "DEVICE")
    notes = [f"source: {networks.source}"]
    if networks.observed_at is not None:
        notes[0] += f", observed at {rfc3339(networks.observed_at)}"
    if networks.host_network:
        notes.append("the pod uses the node's own network")
    rows = tuple(_network(network) for network in networks.status)
    return Table("NETWORK STATUS", headers, rows, tuple(notes))


def _network(network: Network) -> tuple[str, ...]:
    return (
        network.name or _NOTHING,
        network.interface or _NOTHING,
        network.mac or _NOTHING,
        _list(network.ips),
        _yes_no(network.default),
        _or_nothing(network.mtu),
        _list(network.gateway),
        _dns(network.dns),
        _device(network.device_info),
    )


def _dns(dns: DNS | None) -> str:
    return _NOTHING if dns is None else _list((*dns.nameservers, *dns.search, dns.domain))


def _device(device: DeviceInfo | None) -> str:
    if device is None:
        return _NOTHING
    parts = [device.type]
    if device.pci is not None:
        parts.append(device.pci.pci_address)
    if device.vdpa is not None:
        parts += [device.vdpa.driver, device.vdpa.pci_address or device.vdpa.parent_device]
    if device.vhost_user is not None:
        parts += [device.vhost_user.mode, device.vhost_user.path]
    if device.memif is not None:
        parts += [device.memif.role, device.memif.path]
    return " ".join(filter(None, parts)) or _NOTHING


def _pod(pod: Pod) -> Table:
    rows = [
        ("namespace", pod.namespace),
        ("name", pod.name),
        ("uid", pod.uid),
        ("container_name", pod.container_name),
        ("container_id", pod.container_id),
        ("node_name", pod.node_name),
        ("service_account", pod.service_account),
        ("qos_class", pod.qos_class),
        ("phase", pod.phase),
        ("ips", _list(pod.ips)),
        ("host_network", _yes_no(pod.host_network)),
        ("observed_at", "" if pod.observed_at is None else rfc3339(pod.observed_at)),
        *(("label", f"{key}={value}") for key, value in pod.labels.items()),
        *(("annotation", f"{key}={value}") for key, value in pod.annotations.items()),
    ]
    return Table("POD", (), tuple((name, value or _NOTHING) for name, value in rows))


def _node_pods(node: NodePods) -> Table:
    headers = (
        *("POD", "UID", "CONTAINERS", "QOS", "CPUS", "NETWORKS"),
        *("CONNECTIONS", "CALLS", "LAST ERROR"),
    )
    notes = () if node.observed_at is None else (f"observed at {rfc3339(node.observed_at)}",)
    return Table("PODS", headers, tuple(_node_pod(pod) for pod in node.pods), notes)


def _node_pod(pod: NodePod) -> tuple[str, ...]:
    return (
        f"{pod.namespace}/{pod.name}",
        pod.uid,
        _list(tuple(_container(container) for container in pod.containers)),
        pod.qos_class or _NOTHING,
        _list(tuple(dict.fromkeys(_cpu_sets(pod)))),
        f"unreadable: {pod.networks_error}" if pod.networks_error else _list(pod.networks),
        str(pod.connections),
        str(pod.calls),
        _last_error(pod),
    )


def _container(container: NodeContainer) -> str:
    remarks = [
        *([] if container.kind == "container" else [container.kind]),
        *([] if container.state == "running" else [container.state]),
    ]
    return f"{container.name}({' '.join(remarks)})" if remarks else container.name


def _cpu_sets(pod: NodePod) -> Iterator[str]:
    """The CPU set that all containers share, or one for each of them."""
    running = [container for container in pod.containers if container.effective_cpus]
    shared = len({container.effective_cpus for container in running}) == 1
    for container in running:
        yield container.effective_cpus if shared else f"{container.name}:{container.effective_cpus}"


def _last_error(pod: NodePod) -> str:
    if not pod.last_error:
        return _NOTHING
    return pod.last_error + (f" {rfc3339(pod.last_error_at)}" if pod.last_error_at else "")


def _list(items: tuple[str, ...]) -> str:
    return " ".join(filter(None, items)) or _NOTHING


def _or_nothing(value: str | int | None) -> str:
    return _NOTHING if value in (None, "") else str(value)


def _yes_no(flag: bool) -> str:
    return "yes" if flag else "no"
