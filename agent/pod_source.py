"""Creates the sources that --pod-source and --resource-claims name."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from netutil.agent.config import ApiServer, Config, Kubelet, KubeletApi
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.facts.plugin_tree import plugins_directory
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
    kind = config.pod_source.kind
    if kind.startswith("file:"):
        return FileSource(kind.removeprefix("file:"), flaws)
    match kind:
        case "apiserver":
            return _apiserver(config, flaws)
        case "pods-api":
            return PodsApiSource(config.kubelet.pods_api, flaws=flaws)
        case "auto":
            return _detect_source(config, flaws)
        case _:
            return _kubelet(config.kubelet.api, flaws)


def _detect_source(config: Config, flaws: Flaws) -> PodSource | StreamingSource[Pod]:
    """Choose once, at the start: the source must not change while the agent runs."""
    try:
        found = stat.S_ISSOCK(os.stat(config.kubelet.pods_api).st_mode)
        why = "is there" if found else "is no socket"
    except OSError as error:
        found, why = False, f"cannot be used: {error.strerror}"
    chosen = "pods-api" if found else "kubelet"
    _LOG.info("agent: --pod-source auto: %s, since %s %s", chosen, config.kubelet.pods_api, why)
    return (
        PodsApiSource(config.kubelet.pods_api, flaws=flaws)
        if found
        else _kubelet(config.kubelet.api, flaws)
    )


def _apiserver(config: Config, flaws: Flaws) -> StreamingSource[Pod]:
    # The package `kubernetes` costs tens of MiB: other sources must not import it.
    from netutil.agent.pods.sources.apiserver import (  # noqa: PLC0415
        ApiServerSettings,
        ApiServerSource,
    )

    return ApiServerSource(
        ApiServerSettings(_login(config.pod_source.apiserver), node_name=config.host.node_name),
        flaws,
    )


def create_claims_api(config: Config) -> ClaimsApi | None:
    """Return the feed of the API server's claims, None without --resource-claims=apiserver.

    Raises ValueError for a URL that is not https, or names no host.
    """
    if config.kubelet.resource_claims != "apiserver":
        return None
    # As for pods.
    from netutil.agent.pods.http.apiserver_login import open_login  # noqa: PLC0415
    from netutil.agent.pods.sources.claims import (  # noqa: PLC0415
        ClaimSource,
        SliceSource,
        claim_settings,
    )

    settings = claim_settings(open_login(_login(config.pod_source.apiserver)))
    return ClaimsApi(
        ClaimSource(settings, config.host.node_name), SliceSource(settings, config.host.node_name)
    )


def create_device_metadata(kubelet: Kubelet) -> DeviceMetadataFiles | None:
    """Return the files of the drivers of ResourceClaims, None where they are not to be read."""
    if kubelet.resource_claims == "off":
        return None
    return DeviceMetadataFiles(plugins_directory(kubelet.root))


def _login(apiserver: ApiServer) -> ServiceAccount | KubeconfigFile:
    """Return how the agent logs in at the API server."""
    from netutil.agent.pods.http.apiserver_login import (  # noqa: PLC0415
        KubeconfigFile,
        ServiceAccount,
    )

    if apiserver.kubeconfig:
        return KubeconfigFile(apiserver.kubeconfig)
    return ServiceAccount(apiserver.url, apiserver.ca, apiserver.token)


def _kubelet(api: KubeletApi, flaws: Flaws) -> KubeletSource:
    if api.verify == "none":
        _LOG.warning(
            "agent: --kubelet-verify none: any server that answers at %s is believed, and"
            " gets the agent's token",
            api.url,
        )
    return KubeletSource(
        KubeletSettings(
            url=api.url,
            verify=Verify(api.verify),
            ca_file=api.ca or None,
            token_file=api.token or None,
            client_cert=api.client_cert or None,
            client_key=api.client_key or None,
        ),
        flaws,
    )
