"""A whole cluster of one node: etcd, API server, controller manager, scheduler, and its kubelet.

    python -m tests.e2e.control_plane COMMAND…

runs a command with KUBECONFIG set to it and the other variables that the tests of a user's
cluster ask for. It has the machine to itself (`namespaces`); whatever it started ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import FrameType

from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from tests.e2e.agent_image import AGENT_IMAGE
from tests.e2e.authority import DIRECTORY, Authority
from tests.e2e.files import daemon
from tests.e2e.images import pause_image
from tests.e2e.namespaces import NODE_ADDRESS
from tests.e2e.node import NODE_NAME, running_node, wait_for
from tests.e2e.settings import CLIENT_CA

SERVER = f"https://{NODE_ADDRESS}"
SERVICES, FIRST_SERVICE = "203.0.113.0/24", "203.0.113.1"  # RFC 5737: for documentation
"""Pods ask the first one, of the service "kubernetes", for the API server. There is no kube-proxy
to forward its port 443: the API server listens on that port, and the node has the address."""
_ETCD = "http://127.0.0.1:2379"
_LOGS = Path("/var/log/control-plane")
_ISSUER = "https://kubernetes.default.svc"
# Tokens bound to their pod and renewed, as every cluster since 1.21 has them.
_FEATURES = "--feature-gates=BoundServiceAccountTokenVolume=true"


def variable(command: str) -> str:
    """The environment variable that names a command's path."""
    return f"NETUTIL_{command.upper().replace('-', '_')}"


class ControlPlane:
    """The daemons beside the kubelet. Made by `running_cluster`."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.administrator = self._kubeconfig("admin", "system:masters")
        self.kubelet = self._kubeconfig(f"system:node:{NODE_NAME}", "system:nodes")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all and wait until the API server is ready; the others find it by themselves."""
        serving = self.authority.issue(
            "kube-apiserver", "e2e", NODE_ADDRESS, FIRST_SERVICE, "127.0.0.1", "kubernetes"
        ).written("kube-apiserver")
        # A right to everything: it carries `kubectl logs` and `exec` to the kubelet.
        to_kubelet = self.authority.issue("kube-apiserver", "system:masters").written("to-kubelet")
        _, accounts = self.authority.issue("service-accounts", "e2e").written("accounts")
        subprocess.run(["ip", "address", "add", f"{FIRST_SERVICE}/32", "dev", "lo"], check=True)
        self._spawn(
            "etcd",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        )
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            f"--advertise-address={NODE_ADDRESS}",
            "--secure-port=443",
            f"--service-cluster-ip-range={SERVICES}",
            f"--client-ca-file={CLIENT_CA}",
            f"--tls-cert-file={serving[0]}",
            f"--tls-private-key-file={serving[1]}",
            f"--kubelet-client-certificate={to_kubelet[0]}",
            f"--kubelet-client-key={to_kubelet[1]}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            f"--service-account-issuer={_ISSUER}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            _FEATURES,
        )
        wait_for(self._ready, "the API server's /readyz")
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfig('system:kube-controller-manager')}",
            f"--root-ca-file={CLIENT_CA}",
            f"--service-account-private-key-file={accounts}",
            "--use-service-account-credentials=true",  # each controller has a role of its own
            "--leader-elect=false",
            _FEATURES,
        )
        self._spawn(
            "kube-scheduler",
            f"--kubeconfig={self._kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
        )

    def close(self) -> None:
        """End all at once: what they keep is thrown away, and they take their time if asked."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def _kubeconfig(self, user: str, group: str = "e2e") -> str:
        return self.authority.kubeconfig(SERVER, user, group)

    def _ready(self) -> bool:
        for name, process in self._processes.items():
            if process.poll() is not None:
                said = (_LOGS / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} ended:\n{said[-3000:]}")
        with (
            contextlib.suppress(OSError, HTTPError),
            new_client_from_config(self.administrator) as api,
        ):
            request = api.param_serialize("GET", "/readyz", auth_settings=["BearerToken"])
            answer = api.call_api(*request, _request_timeout=5)
            answer.read()
            return bool(answer.status == HTTPStatus.OK)
        return False

    def _spawn(self, command: str, *arguments: str) -> None:
        self._processes[command] = daemon(
            _LOGS / f"{command}.log",
            os.environ[variable(command)],
            *arguments,
            directory=DIRECTORY,  # the scheduler and its kin make files where they stand
        )


@contextlib.contextmanager
def running_cluster() -> Iterator[ControlPlane]:
    """A cluster until the end of the block, its node registered and with the agent's image."""
    plane = ControlPlane()
    kubelet, agent = (Path(os.environ[f"NETUTIL_{name}"]) for name in ("KUBELET", "AGENT_IMAGE"))
    try:
        plane.start()
        arguments = (f"--kubeconfig={plane.kubelet}", "--register-node=true")
        with running_node(kubelet, pause_image(), agent, kubelet_arguments=arguments, webhook=True):
            yield plane
    finally:
        plane.close()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Return the command's exit code."""
    signal.signal(signal.SIGTERM, _end)
    with running_cluster() as plane:
        environment = {
            **os.environ,
            "KUBECONFIG": plane.administrator,
            "NETUTIL_IMAGE": AGENT_IMAGE,
            "NETUTIL_COMPONENTS": "self-signed-kubelet",
            "NETUTIL_OWN_CLUSTER": "1",
        }
        with subprocess.Popen(sys.argv[1:], env=environment) as command:
            while True:
                try:
                    return command.wait()
                except KeyboardInterrupt:
                    command.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
