"""Creates the sources that --pod-source and --resource-claims name."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from netutil.agent.config import Config
from netutil.agent.kubelet.podsapi.source import PodsApiSource
from netutil.agent.pods.claims_api import ClaimsApi
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod
from netutil.agent.pods.sources.base import PodSource, StreamingSource
from netutil.agent.pods.sources.file import FileSource
from netutil.agent.pods.sources.kubelet import KubeletSettings, KubeletSource, Verify

if TYPE_CHECKING:
    from netutil.agent.pods.http.apiserver_login import KubeconfigFile, ServiceAccount

_LOG = logging.getLogger(__name__)


def create_source(config: Config, flaws: Flaws | None = None) -> PodSource | StreamingSource[Pod]:
    """Return the pod source that --pod-source names; `flaws` counts what it cannot understand."""
    flaws = flaws or Flaws()
    if config.pod_source.startswith("file:"):
        return FileSource(config.pod_source.removeprefix("file:"), flaws)
    match config.pod_source:
        case "apiserver":
            return _apiserver(config, flaws)
        case "pods-api":
            return PodsApiSource(config.pods_api, flaws=flaws)
        case "auto":
            return _detect_source(config, flaws)
        case _:
            return _kubelet(config, flaws)


def _detect_source(config: Config, flaws: Flaws) -> PodSource | StreamingSource[Pod]:
    """Choose once, at the start: the source must not change while the agent runs."""
    try:
        found = stat.S_ISSOCK(os.stat(config.pods_api).st_mode)
        why = "is there" if found else "is no socket"
    except OSError as error:
        found, why = False, f"cannot be used: {error.strerror}"
    chosen = "pods-api" if found else "kubelet"
    _LOG.info("agent: --pod-source auto: %s, since %s %s", chosen, config.pods_api, why)
    return PodsApiSource(config.pods_api, flaws=flaws) if found else _kubelet(config, flaws)


def _apiserver(config: Config, flaws: Flaws) -> StreamingSource[Pod]:
    # The package `kubernetes` costs tens of MiB: other sources must not import it.
    from netutil.agent.pods.sources.apiserver import (  # noqa: PLC0415
        ApiServerSettings,
        ApiServerSource,
    )

    return ApiServerSource(ApiServerSettings(_login(config), node_name=config.node_name), flaws)


def create_claims_api(config: Config) -> ClaimsApi | None:
    """Return the feed of the API server's claims, None without --resource-claims=apiserver.

    Raises ValueError for a URL that is not https, or names no host.
    """
    if config.resource_claims != "apiserver":
        return None
    # As for pods.
    from netutil.agent.pods.http.apiserver_login import open_login  # noqa: PLC0415
    from netutil.agent.pods.sources.claims import (  # noqa: PLC0415
        ClaimSource,
        SliceSource,
        claim_settings,
    )

    settings = claim_settings(open_login(_login(config)))
    return ClaimsApi(
        ClaimSource(settings, config.node_name), SliceSource(settings, config.node_name)
    )


def _login(config: Config) -> ServiceAccount | KubeconfigFile:
    """Return how the agent logs in at the API server."""
    from netutil.agent.pods.http.apiserver_login import (  # noqa: PLC0415
        KubeconfigFile,
        ServiceAccount,
    )

    if config.kubeconfig:
        return KubeconfigFile(config.kubeconfig)
    return ServiceAccount(config.apiserver_url, config.apiserver_ca, config.apiserver_token)


def _kubelet(config: Config, flaws: Flaws) -> KubeletSource:
    if config.kubelet_verify == "none":
        _LOG.warning(
            "agent: --kubelet-verify none: any server that answers at %s is believed, and"
            " gets the agent's token",
            config.kubelet_url,
        )
    return KubeletSource(
        KubeletSettings(
            url=config.kubelet_url,
            verify=Verify(config.kubelet_verify),
            ca_file=config.kubelet_ca or None,
            token_file=config.kubelet_token or None,
            client_cert=config.kubelet_client_cert or None,
            client_key=config.kubelet_client_key or None,
        ),
        flaws,
    )
