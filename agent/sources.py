"""From the settings to the source of the pod list."""

from __future__ import annotations

import logging

from netutil.agent.pods.file import FileSource
from netutil.agent.pods.kubelet import KubeletSettings, KubeletSource, Verify
from netutil.agent.pods.source import PodSource
from netutil.agent.settings import Settings

_LOG = logging.getLogger(__name__)


def open_source(settings: Settings) -> PodSource:
    """Return the pod source that --pod-source names."""
    if settings.pod_source.startswith("file:"):
        return FileSource(settings.pod_source.removeprefix("file:"))
    if settings.kubelet_verify == "none":
        _LOG.warning(
            "agent: --kubelet-verify none: whoever answers at %s is believed, and is sent the"
            " agent's token",
            settings.kubelet_url,
        )
    return KubeletSource(
        KubeletSettings(
            url=settings.kubelet_url,
            verify=Verify(settings.kubelet_verify),
            ca_file=settings.kubelet_ca or None,
            token_file=settings.kubelet_token or None,
            client_cert=settings.kubelet_client_cert or None,
            client_key=settings.kubelet_client_key or None,
        )
    )
