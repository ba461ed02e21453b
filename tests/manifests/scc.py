"""The checks of OpenShift on a pod, by security context constraints.

A model, as far as a pod of these manifests meets the rules: that of seccomp profiles was read in
openshift/apiserver-library-go, the others are taken from constraints that exist. Strategies for
users, groups and SELinux are not modelled: the constraints here permit every user, group and
SELinux label.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.manifests.documents import Manifest

_STRATEGIES = ("runAsUser", "seLinuxContext", "fsGroup", "supplementalGroups")


def rejections(constraints: Manifest, pod: Manifest) -> set[str]:
    """The fields of the constraints that reject a pod; empty if they admit it."""
    return set(_of_pod(constraints, pod)).union(
        *(
            _of_container(constraints, container)
            for container in (*pod.get("initContainers", []), *pod["containers"])
        )
    )


def _of_pod(constraints: Manifest, pod: Manifest) -> Iterator[str]:
    for field in _STRATEGIES:
        if constraints[field] != {"type": "RunAsAny"}:
            yield field
    for field, key in (
        ("allowHostPID", "hostPID"),
        ("allowHostIPC", "hostIPC"),
        ("allowHostNetwork", "hostNetwork"),
    ):
        if pod.get(key) and not constraints[field]:
            yield field
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    if pod["automountServiceAccountToken"]:
        kinds.add("projected")
    if not kinds <= set(constraints["volumes"]):
        yield "volumes"
    if "hostPath" in kinds and not constraints["allowHostDirVolumePlugin"]:
        yield "allowHostDirVolumePlugin"


def _of_container(constraints: Manifest, container: Manifest) -> Iterator[str]:
    context = container["securityContext"]
    if context.get("privileged") and not constraints["allowPrivilegedContainer"]:
        yield "allowPrivilegedContainer"
    if (
        context.get("allowPrivilegeEscalation", True)
        and not constraints["allowPrivilegeEscalation"]
    ):
        yield "allowPrivilegeEscalation"
    if constraints["readOnlyRootFilesystem"] and not context.get("readOnlyRootFilesystem"):
        yield "readOnlyRootFilesystem"
    added = set(context.get("capabilities", {}).get("add", []))
    if not added <= set(constraints["allowedCapabilities"]):
        yield "allowedCapabilities"
    if "seccompProfile" in context and "*" not in constraints["seccompProfiles"]:
        yield "seccompProfiles"
    on_host = any("hostPort" in port for port in container.get("ports", []))
    if on_host and not constraints["allowHostPorts"]:
        yield "allowHostPorts"
