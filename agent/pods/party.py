"""The servers that are asked over HTTPS: how errors name them, and what mends what fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Party:
    """A server. `name` begins a sentence, `name_inside` stands in one; `flags` begin its flags."""

    name: str
    name_inside: str
    flags: str
    status_advice: Mapping[int, str]
    ca_advice: str
    clock_advice: str
    host_name_advice: str
    no_certificate_advice: str
    bad_certificate_advice: str
    internal_error: tuple[str, str]
    """What probably is behind the TLS alert internal_error, and what to do; "" for not known."""

    @property
    def own(self) -> str:
        """Return its genitive, inside a sentence."""
        return f"{self.name_inside}'s"

    @property
    def url_flag(self) -> str:
        """Return the flag of its address."""
        return f"{self.flags}-url"

    @property
    def ca_flag(self) -> str:
        """Return the flag of the CA that signed its certificate."""
        return f"{self.flags}-ca"

    @property
    def again(self) -> str:
        """Return what to look at where nothing more is known."""
        return f"Look at {self.url_flag} and at {self.name_inside}; the agent tries again."


_APPROVE = (
    "A kubelet with serverTLSBootstrap has none until its request is approved, which Kubernetes"
    " does not do by itself: `kubectl get csr` shows what is pending (signer"
    " kubernetes.io/kubelet-serving), `kubectl certificate approve NAME` approves it. Else look at"
    " the kubelet's log."
)

KUBELET = Party(
    name="The kubelet",
    name_inside="the kubelet",
    flags="--kubelet",
    status_advice={
        401: "The kubelet accepts neither the token nor the client certificate: look at"
        " --kubelet-token, --kubelet-client-cert, and the kubelet's webhook authentication.",
        403: "Give the agent's service account the ClusterRole in manifests/ (get on"
        " nodes/pods); for kubelets before 1.33, which ask for nodes/proxy:"
        " kubectl apply -f manifests/nodes-proxy.yaml.",
        404: "Look at --kubelet-url: what answers there has no /pods.",
    },
    ca_advice="Name the CA of the kubelets' serving certificates in --kubelet-ca.",
    clock_advice="Let the kubelet renew its certificate (serverTLSBootstrap), and compare the"
    " clocks.",
    host_name_advice="The certificate does not bear the name or address of --kubelet-url. If the"
    " kubelets' certificates never do, --kubelet-verify ca checks the chain only.",
    no_certificate_advice="Name one in --kubelet-client-cert and --kubelet-client-key.",
    bad_certificate_advice="Look at --kubelet-client-cert and at the kubelet's clientCAFile.",
    internal_error=("it probably has no serving certificate yet", _APPROVE),
)

_NO_CLIENT_CERTIFICATE = (
    "The agent shows its service account's token and no certificate: look at --apiserver-url and"
    " at what stands before the API server."
)

API_SERVER = Party(
    name="The API server",
    name_inside="the API server",
    flags="--apiserver",
    status_advice={
        401: "The API server does not accept the token of --apiserver-token, which is read anew"
        " each time: look whether it has expired, and whether it is of this cluster.",
        403: "Give the agent's service account list and watch on pods: the component"
        " manifests/apiserver does.",
        404: "Look at --apiserver-url: what answers there has no /api/v1/pods.",
        429: "The API server is overloaded, or its priority and fairness holds the agents back;"
        " the agent tries again when it is told to.",
    },
    ca_advice="Name the CA of the API server's certificate in --apiserver-ca.",
    clock_advice="Let the API server's certificate be renewed, and compare the clocks.",
    host_name_advice="The certificate does not bear the name or address of --apiserver-url.",
    no_certificate_advice=_NO_CLIENT_CERTIFICATE,
    bad_certificate_advice=_NO_CLIENT_CERTIFICATE,
    internal_error=("", "Look at its log, and at what stands before it; the agent tries again."),
)
