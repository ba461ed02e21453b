"""What the operators' diagnosis is told of the settings."""

from __future__ import annotations

from netutil.agent.limits.descriptors import descriptors_for
from netutil.agent.service.doctor import Installation
from netutil.agent.settings import Settings


def installation_of(settings: Settings, pin_name: str) -> Installation:
    """Return it; `pin_name` says how peers are pinned."""
    return Installation(
        host_root=settings.host_root,
        socket=settings.socket,
        admin_socket=settings.admin_socket,
        believes_anybody=settings.kubelet_verify == "none"
        and settings.pod_source in ("kubelet", "auto"),
        pod_resources=settings.pod_resources,
        max_connections=settings.max_connections,
        descriptors_needed=descriptors_for(
            settings.max_connections, settings.max_network_namespaces
        ),
        pin_name=pin_name,
    )
