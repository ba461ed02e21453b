"""Tables of the answers of the pods' socket. Pure."""

from __future__ import annotations

from netutil.client.cli.render.cells import listed, observed, or_nothing, unknown, yes_no
from netutil.client.cli.render.devices import device, hugepages, interfaces, resources
from netutil.client.cli.render.tables import Table
from netutil.client.cpulist import format_cpulist
from netutil.client.documents import rfc3339
from netutil.client.models.core import (
    CPU,
    DNS,
    CgroupLevel,
    CPUAmounts,
    CpusetPartition,
    Environment,
    Network,
    NetworkStatus,
    NodeCPU,
    PartError,
    Pod,
)
from netutil.client.models.devices import All, Hugepages, Interfaces, Resources
from netutil.client.text import NOTHING, level_name


def tables_for(answer: object, *, environment: bool = True) -> tuple[Table, ...]:
    """The tables of an answer of this client; without `environment` `All` has its size alone."""
    match answer:
        case CPU():
            return (_cpu(answer), *([_topology(answer)] if answer.cpus else []))
        case Environment():
            return (_environment(answer),)
        case NetworkStatus():
            return (_network_status(answer),)
        case Pod():
            return (_pod(answer),)
        case Interfaces():
            return interfaces(answer)
        case Hugepages():
            return hugepages(answer)
        case Resources():
            return resources(answer)
        case All():
            return _all(answer, environment=environment)
    raise TypeError(type(answer))


def _all(answer: All, *, environment: bool) -> tuple[Table, ...]:
    variables = answer.environment if environment else None
    parts = (
        *(answer.pod, answer.cpu, variables, answer.network_status),
        *(answer.interfaces, answer.hugepages, answer.resources),
    )
    tables = [table for part in parts if part is not None for table in tables_for(part)]
    if answer.environment is not None and not environment:
        count = len(answer.environment.envs)
        tables.append(Table("ENVIRONMENT", (), (("variables", f"{count}, shown with --env"),)))
    if answer.errors:
        rows = tuple(map(_error, answer.errors))
        tables.append(Table("NOT ANSWERED", ("PART", "REASON", "SENTENCE", "ADVICE"), rows))
    return tuple(tables)


def _error(error: PartError) -> tuple[str, ...]:
    return (error.part, error.reason, error.message, error.advice or NOTHING)


def _cpu(cpu: CPU) -> Table:
    rows = [
        ("cpuset", cpu.cpuset or NOTHING),
        ("effective_cpus", cpu.effective_cpus or NOTHING),
        ("affinity", or_nothing(cpu.affinity)),
        ("quota", _quota(cpu)),
        *([("container_quota", _own_quota(cpu))] if _has_other_quota(cpu) else []),
        ("shares", or_nothing(cpu.shares)),
        ("weight", or_nothing(cpu.weight)),
        ("cgroup_version", str(cpu.cgroup_version)),
    ]
    if cpu.exclusive_cpus is not None:
        # An empty list may be the agent's conclusion from class and spec: no word of the kubelet.
        given = f"kubelet: {cpu.exclusive_cpus}" if cpu.exclusive_cpus else "none from the kubelet"
        rows.append(("exclusive_cpus", given))
    if cpu.cpuset_partition is not None:
        rows.append(("cpuset_partition", f"kernel: {_partition(cpu.cpuset_partition)}"))
    rows += [
        (name, _amounts(amounts))
        for name, amounts in (
            ("container", cpu.container_amounts),
            ("pod", cpu.pod_amounts),
        )
        if amounts is not None
    ]
    notes = (
        *unknown("exclusive CPUs", cpu.resources_error),
        *unknown("what the pod asks for", cpu.spec_error),
    )
    return Table("CPU", (), tuple(rows), notes)


def _amounts(cpus: CPUAmounts) -> str:
    """The requests and limits, and the granted amounts that the kubelet reports."""
    parts = [
        f"{name} {value:g}"
        for name, value in (
            ("request", cpus.request_cores),
            ("limit", cpus.limit_cores),
            ("granted request", cpus.granted_request_cores),
            ("granted limit", cpus.granted_limit_cores),
        )
        if value is not None
    ]
    return ", ".join(parts)


def _topology(cpu: CPU) -> Table:
    headers = (
        *("CPU", "CORE", "SOCKET", "NUMA", "SIBLINGS"),
        *("ONLINE", "ISOLATED", "NOHZ_FULL", "EXCLUSIVE"),
    )
    notes = ("EXCLUSIVE: given to this container alone by the kubelet",)
    return Table("TOPOLOGY", headers, tuple(map(_node_cpu, cpu.cpus or ())), notes)


def _node_cpu(cpu: NodeCPU) -> tuple[str, ...]:
    return (
        str(cpu.id),
        or_nothing(cpu.core),
        or_nothing(cpu.socket),
        or_nothing(cpu.numa_node),
        format_cpulist(cpu.siblings) or NOTHING,
        yes_no(cpu.online),
        yes_no(cpu.isolated),
        yes_no(cpu.nohz_full),
        yes_no(cpu.exclusive),
    )


def _quota(cpu: CPU) -> str:
    if cpu.quota_unknown:
        return "not known: the agent sees no cpu cgroup of the container"
    said = _limit(cpu.quota_cores, cpu.quota_microseconds, cpu.period_microseconds)
    if not _is_limited_above(cpu):
        return said
    return f"{said}, limit of the {level_name(cpu.quota_level)} cgroup"


def _own_quota(cpu: CPU) -> str:
    return _limit(
        cpu.container_quota_cores,
        cpu.container_quota_microseconds,
        cpu.container_period_microseconds,
    )


def _is_limited_above(cpu: CPU) -> bool:
    """Whether the effective limit is that of a cgroup above the container's."""
    return cpu.quota_level not in (None, CgroupLevel.CONTAINER)


def _has_other_quota(cpu: CPU) -> bool:
    """Whether the container has a limit of its own beside the effective limit.

    A process in the pod's own cgroup is in no container, and has no period of a container.
    """
    return _is_limited_above(cpu) and cpu.container_period_microseconds is not None


def _limit(cores: float | None, quota: int | None, period: int | None) -> str:
    if cores is None:
        return "no limit"
    said = f"{cores:g} CPU{'' if cores == 1 else 's'}"
    if quota is None or period is None:
        return said
    return f"{said} ({quota} us in {period} us)"


def _partition(found: CpusetPartition) -> str:
    """The cpuset partition of the CPUs in a few words."""
    if found.cpu_exclusive is not None:
        flag = "shares its CPUs with no other but those above and below it"
        return f"the container's cgroup {flag}" if found.cpu_exclusive else "no exclusive cpuset"
    asked = found.requested_exclusive_cpus
    if found.level is None:
        request = f", although cpuset.cpus.exclusive asks for {asked}" if asked else ""
        return f"no cpuset partition{request}"
    said = f"{found.state}, the {level_name(found.level)} cgroup's"
    if found.state.endswith("invalid"):
        why = f" ({found.invalid_reason})" if found.invalid_reason else ""
        return f"{said}, without effect{why}"
    return f"{said}, CPUs {found.exclusive_cpus}" if found.exclusive_cpus else said


def _environment(environment: Environment) -> Table:
    notes = []
    if environment.replaced_entries:
        notes.append(f"entries with bytes that are not UTF-8: {environment.replaced_entries}")
    if environment.skipped_entries:
        notes.append(f'entries without "=" left out: {environment.skipped_entries}')
    return Table("ENVIRONMENT", ("NAME", "VALUE"), tuple(environment.envs.items()), tuple(notes))


def _network_status(networks: NetworkStatus) -> Table:
    headers = ("NAME", "INTERFACE", "MAC", "IPS", "DEFAULT", "MTU", "GATEWAY", "DNS", "DEVICE")
    notes = [", ".join((f"source: {networks.source}", *observed(networks.observed_at)))]
    if networks.host_network:
        notes.append("the pod uses the node's own network")
    notes += unknown("devices of the Userspace CNI plugin", networks.device_info_error)
    rows = tuple(_network(network) for network in networks.status)
    return Table("NETWORK STATUS", headers, rows, tuple(notes))


def _network(network: Network) -> tuple[str, ...]:
    return (
        network.name or NOTHING,
        network.interface or NOTHING,
        network.mac or NOTHING,
        listed(network.ips),
        yes_no(network.default),
        or_nothing(network.mtu),
        listed(network.gateway),
        _dns(network.dns),
        device(network.device_info),
    )


def _dns(dns: DNS | None) -> str:
    return NOTHING if dns is None else listed((*dns.nameservers, *dns.search, dns.domain))


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
        ("ips", listed(pod.ips)),
        ("host_network", yes_no(pod.host_network)),
        ("observed_at", "" if pod.observed_at is None else rfc3339(pod.observed_at)),
        *(("label", f"{key}={value}") for key, value in pod.labels.items()),
        *(("annotation", f"{key}={value}") for key, value in pod.annotations.items()),
        *(("not_understood", path) for path in pod.not_understood),
    ]
    return Table("POD", (), tuple((name, value or NOTHING) for name, value in rows))
