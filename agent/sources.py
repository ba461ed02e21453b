"""From the settings to the source of the pod list."""

from __future__ import annotations

import logging
import os
import stat

from netutil.agent.pods.apiserver import ApiServerSettings, ApiServerSource
from netutil.agent.pods.file import FileSource
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.kubelet import KubeletSettings, KubeletSource, Verify
from netutil.agent.pods.requests import ApiServerAddress
from netutil.agent.pods.source import PodSource, PushedSource
from netutil.agent.podsapi.source import PodsApiSource
from netutil.agent.settings import Settings

_LOG = logging.getLogger(__name__)


def open_source(settings: Settings, flaws: Flaws | None = None) -> PodSource | PushedSource:
    """Return the pod source that --pod-source names; `flaws` counts what it cannot understand."""
    flaws = flaws or Flaws()
    if settings.pod_source.startswith("file:"):
        return FileSource(settings.pod_source.removeprefix("file:"), flaws)
    match settings.pod_source:
        case "apiserver":
            return _apiserver(settings, flaws)
        case "pods-api":
            return PodsApiSource(settings.pods_api, flaws=flaws)
        case "auto":
            return _whatever_there_is(settings, flaws)
        case _:
            return _kubelet(settings, flaws)


def _whatever_there_is(settings: Settings, flaws: Flaws) -> PodSource | PushedSource:
    """Decide once, at the start: a source that changes under way would explain nothing."""
    try:
        found = stat.S_ISSOCK(os.stat(settings.pods_api).st_mode)
        why = "is there" if found else "is no socket"
    except OSError as error:
        found, why = False, f"is not to be had: {error.strerror}"
    chosen = "pods-api" if found else "kubelet"
    _LOG.info("agent: --pod-source auto: %s, since %s %s", chosen, settings.pods_api, why)
    return PodsApiSource(settings.pods_api, flaws=flaws) if found else _kubelet(settings, flaws)


def _apiserver(settings: Settings, flaws: Flaws) -> ApiServerSource:
    return ApiServerSource(
        ApiServerSettings(
            ApiServerAddress(
                url=settings.apiserver_url,
                ca_file=settings.apiserver_ca,
                token_file=settings.apiserver_token,
            ),
            node_name=settings.node_name,
        ),
        flaws,
    )


def _kubelet(settings: Settings, flaws: Flaws) -> KubeletSource:
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
        ),
        flaws,
    )
