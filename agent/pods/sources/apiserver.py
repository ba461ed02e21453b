"""Pod source: the pods of one node at the API server."""

from __future__ import annotations

from dataclasses import dataclass, field

from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http.apiserver_login import KubeconfigFile, ServiceAccount, open_login
from netutil.agent.pods.model import Pod, decode_pod, decode_pod_list
from netutil.agent.pods.sources.base import MAX_PODS, ConfirmTiming, SourceKind
from netutil.agent.pods.sources.listwatch import Kind
from netutil.agent.pods.sources.reflector import Reflector, ReflectorSettings, Resource, Selection
from netutil.agent.pods.store import uid_of_pod

PODS = Kind("pods", decode_pod_list, decode_pod, uid_of_pod, MAX_PODS, "pods for one node")
_PATH = "/api/v1/pods"
_KIND = SourceKind(
    "The API server",
    "The API server has no such pod on the node of --node-name: compare that name with `kubectl"
    " get nodes`, and `netutil node pods` on the node with `kubectl get pods -A`.",
    needs_mirrors=True,
)


@dataclass(frozen=True, slots=True)
class ApiServerSettings:
    """Whom to ask for which node, and how long to wait, as `ReflectorSettings`."""

    login: ServiceAccount | KubeconfigFile
    node_name: str
    list_seconds: float = 30.0
    watch_seconds: int = 300
    silence_seconds: float = 100.0
    compare_seconds: float = 8.0
    confirm: ConfirmTiming = field(default_factory=ConfirmTiming)


class ApiServerSource(Reflector[Pod]):
    """Follows one node's pods."""

    def __init__(self, settings: ApiServerSettings, flaws: Flaws | None = None) -> None:
        """Raise ValueError for a URL that is not https, or names no host.

        `flaws` counts what of the pods is not understood.
        """
        selector = f"spec.nodeName={settings.node_name}"
        super().__init__(
            _KIND,
            Resource(PODS, _PATH, lambda _: _PATH, Selection(True, selector), "pod-source"),
            ReflectorSettings(
                open_login(settings.login),
                settings.list_seconds,
                settings.watch_seconds,
                settings.silence_seconds,
                settings.compare_seconds,
                settings.confirm,
            ),
            flaws,
        )
