"""Creates the pod source that --pod-source names."""

from __future__ import annotations

import logging
import os
import stat

from netutil.agent.config import Config
from netutil.agent.kubelet.podsapi.source import PodsApiSource
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod
from netutil.agent.pods.sources.base import PodSource, StreamingSource
from netutil.agent.pods.sources.file import FileSource
from netutil.agent.pods.sources.kubelet import KubeletSettings, KubeletSource, Verify

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
    from netutil.agent.pods.http.apiserver_login import (  # noqa: PLC0415
        KubeconfigFile,
        ServiceAccount,
    )
    from netutil.agent.pods.sources.apiserver import (  # noqa: PLC0415
        ApiServerSettings,
        ApiServerSource,
    )

    login: ServiceAccount | KubeconfigFile
    if config.kubeconfig:
        login = KubeconfigFile(config.kubeconfig)
    else:
        login = ServiceAccount(config.apiserver_url, config.apiserver_ca, config.apiserver_token)
    return ApiServerSource(ApiServerSettings(login, node_name=config.node_name), flaws)


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
