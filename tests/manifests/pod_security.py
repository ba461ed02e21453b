"""The controls of Pod Security: what each level of a namespace demands of a pod on Linux.

A model of k8s.io/pod-security-admission/policy, one function for each of its checks and by the
check's own ID. The newest version of the standards is meant: each control holds for all versions,
or for Kubernetes from the version that is named beside it on. Volumes of the type `image`, which
only newer API servers know, count as refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from tests.support.manifests.documents import Manifest

Level = Literal["baseline", "restricted"]
Control = Callable[[Manifest], bool]

_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_syncookies",
}
_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
_PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: Manifest, level: Level) -> set[str]:
    """The IDs of the checks that refuse a pod in a namespace of that level; empty if it may run."""
    controls = dict(_BASELINE)
    if level == "restricted":
        controls |= _RESTRICTED
    return {identifier for identifier, permits in controls.items() if not permits(pod["spec"])}


def _containers(spec: Manifest) -> list[Manifest]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind, [])]


def _contexts(spec: Manifest) -> list[Manifest]:
    return [container.get("securityContext", {}) for container in _containers(spec)]


def _all_contexts(spec: Manifest) -> list[Manifest]:
    return [spec.get("securityContext", {}), *_contexts(spec)]


def _host_namespaces(spec: Manifest) -> bool:
    return not any(spec.get(name) for name in ("hostPID", "hostIPC", "hostNetwork"))


def _privileged(spec: Manifest) -> bool:
    return not any(context.get("privileged") for context in _contexts(spec))


def _added(spec: Manifest) -> set[str]:
    contexts = _contexts(spec)
    return {name for one in contexts for name in one.get("capabilities", {}).get("add", [])}


def _capabilities_baseline(spec: Manifest) -> bool:
    return _added(spec) <= _CAPABILITIES


def _capabilities_restricted(spec: Manifest) -> bool:
    dropped = [context.get("capabilities", {}).get("drop", []) for context in _contexts(spec)]
    return all("ALL" in names for names in dropped) and _added(spec) <= {"NET_BIND_SERVICE"}


def _host_path_volumes(spec: Manifest) -> bool:
    return not any("hostPath" in volume for volume in spec.get("volumes", []))


def _host_ports(spec: Manifest) -> bool:
    ports = [port for container in _containers(spec) for port in container.get("ports", [])]
    return not any(port.get("hostPort") for port in ports)


def _app_armor(spec: Manifest) -> bool:  # the field is of 1.30; before it was an annotation
    profiles = [context.get("appArmorProfile") for context in _all_contexts(spec)]
    return all(profile is None or profile["type"] in _PROFILES for profile in profiles)


def _selinux(spec: Manifest) -> bool:
    options = [context.get("seLinuxOptions", {}) for context in _all_contexts(spec)]
    return all(
        one.get("type", "") in _SELINUX_TYPES and not one.get("user") and not one.get("role")
        for one in options
    )


def _proc_mount(spec: Manifest) -> bool:
    return all(context.get("procMount", "Default") == "Default" for context in _contexts(spec))


def _seccomp_baseline(spec: Manifest) -> bool:
    profiles = [context.get("seccompProfile") for context in _all_contexts(spec)]
    return all(profile is None or profile["type"] in _PROFILES for profile in profiles)


def _seccomp_restricted(spec: Manifest) -> bool:
    of_pod = spec.get("securityContext", {}).get("seccompProfile")
    profiles = [context.get("seccompProfile", of_pod) for context in _contexts(spec)]
    return all(profile is not None and profile["type"] in _PROFILES for profile in profiles)


def _sysctls(spec: Manifest) -> bool:
    listed = spec.get("securityContext", {}).get("sysctls", [])
    return {sysctl["name"] for sysctl in listed} <= _SYSCTLS


def _handlers(container: Manifest) -> Iterator[Manifest]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield container.get(name, {})
    yield from container.get("lifecycle", {}).values()


def _host_probes(spec: Manifest) -> bool:  # 1.34
    handlers = [handler for container in _containers(spec) for handler in _handlers(container)]
    return not any(
        handler.get(kind, {}).get("host") for handler in handlers for kind in _NETWORK_HANDLERS
    )


_NETWORK_HANDLERS = ("httpGet", "tcpSocket")


def _restricted_volumes(spec: Manifest) -> bool:
    return all(_VOLUMES & set(volume) for volume in spec.get("volumes", []))


def _privilege_escalation(spec: Manifest) -> bool:
    return all(context.get("allowPrivilegeEscalation") is False for context in _contexts(spec))


def _run_as_non_root(spec: Manifest) -> bool:
    of_pod = spec.get("securityContext", {}).get("runAsNonRoot")
    return all(context.get("runAsNonRoot", of_pod) is True for context in _contexts(spec))


def _run_as_user(spec: Manifest) -> bool:
    return all(context.get("runAsUser") != 0 for context in _all_contexts(spec))


_BASELINE: dict[str, Control] = {
    "hostNamespaces": _host_namespaces,
    "privileged": _privileged,
    "capabilities_baseline": _capabilities_baseline,
    "hostPathVolumes": _host_path_volumes,
    "hostPorts": _host_ports,
    "appArmorProfile": _app_armor,
    "seLinuxOptions": _selinux,
    "procMount": _proc_mount,
    "seccompProfile_baseline": _seccomp_baseline,
    "sysctls": _sysctls,
    "hostProbesAndHostLifecycle": _host_probes,
}
_RESTRICTED: dict[str, Control] = {
    "restrictedVolumes": _restricted_volumes,
    "allowPrivilegeEscalation": _privilege_escalation,
    "runAsNonRoot": _run_as_non_root,
    "runAsUser": _run_as_user,
    "seccompProfile_restricted": _seccomp_restricted,
    "capabilities_restricted": _capabilities_restricted,
}
CONTROLS = frozenset(_BASELINE) | frozenset(_RESTRICTED)
