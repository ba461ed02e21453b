"""A node of the lab on which the agent runs as a manifest says, with its kubelet and its pods."""

from __future__ import annotations

import json
import random
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.manifests import asking
from tests.manifests.container import command
from tests.support.fakes.certificates import context_of
from tests.support.fakes.kubelet import Handler, KubeletDouble, serving
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.manifests.documents import Manifest, agent_of, settings_of
from tests.support.manifests.privileges import with_capabilities

_KUBELET_PORT = 10250
_METRICS_PORT = 9464
_USER = 1000
# What containerd gives a container that asks for nothing.
RUNTIME_DEFAULT = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
)


@dataclass
class LabNode:
    """One agent at a time runs on it."""

    lab: Lab
    kubelet: KubeletDouble
    service_account: Path
    user: LabContainer
    root: LabContainer
    bare: LabContainer
    node: dict[str, str] = field(default_factory=dict)

    @property
    def pods_api(self) -> Path:
        """The directory of the kubelet's socket."""
        return self.lab.directory / "pods-api"

    def deploy(
        self, objects: list[Manifest], services: Mapping[str, str] | None = None
    ) -> LabAgent:
        """Start the agent of these objects in the place of the one that runs."""
        self.withdraw()
        self.node = {
            "status.hostIP": str(self.kubelet.server_address[0]),
            "status.podIP": free_loopback(_METRICS_PORT),
            "spec.nodeName": "lab-node",
        }
        place = self.lab.directory / f"root-{len(self.lab.agents)}"
        place.mkdir()
        pod_resources = self.lab.directory / "pod-resources"
        pod_resources.mkdir(exist_ok=True)
        plugins = self.lab.directory / "plugins"
        plugins.mkdir(exist_ok=True)
        self.pods_api.mkdir(exist_ok=True)
        argv = command(
            objects,
            self.node,
            root=place,
            host_paths={
                "/run/netutil": self.lab.socket.parent,
                "/run/netutil-admin": self.lab.admin_socket.parent,
                "/sys": Path("/sys"),
                "/var/lib/kubelet/pod-resources": pod_resources,
                "/var/lib/kubelet/plugins": plugins,
                "/var/lib/kubelet/pods-api": self.pods_api,
            },
            service_account=self.service_account,
            services=services or {},
        )
        address = settings_of(agent_of(objects), self.node, services).observability.metrics_address
        return self.lab.start_agent(argv, address)

    def withdraw(self) -> None:
        """Stop the agent that runs, if any."""
        for agent in self.lab.agents:
            if agent.running:
                assert agent.stop() == 0

    def exec(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the agent's container, as `kubectl exec` does."""
        inside = ("nsenter", f"--target={self.lab.agents[-1].pid}", "--mount", "--cgroup", "--wd=/")
        return subprocess.run(
            [*inside, *argv], capture_output=True, text=True, check=False, timeout=60
        )

    def failed(self) -> set[str]:
        """The questions of several callers that the agent does not answer."""
        callers = {
            "user": self._ask(self.user, _USER, "visible"),
            "hidden user": self._ask(self.user, _USER, "hidden"),
            "root": self._ask(self.root, 0, "visible", with_capabilities(*RUNTIME_DEFAULT)),
            "bare root": self._ask(self.bare, 0, "visible", with_capabilities()),
        }
        return {f"{caller}: {question}" for caller, found in callers.items() for question in found}

    def _ask(
        self, container: LabContainer, uid: int, kind: str, prefix: Sequence[str] = ()
    ) -> dict[str, str]:
        program = (sys.executable, asking.__file__, str(uid), kind)
        done = container.run([*prefix, *program], uid=0, gid=0, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


@contextmanager
def lab_node() -> Iterator[LabNode]:
    authority = trustme.CA()
    address = free_loopback(_KUBELET_PORT)
    token = secrets.token_hex(16)
    with Lab() as lab:

        def answer(handler: Handler) -> None:
            """As a kubelet with webhook authentication: no pods without the token."""
            known = handler.headers.get("Authorization") == f"Bearer {token}"
            allowed = known and handler.path.partition("?")[0].rstrip("/") == "/pods"
            body = json.dumps(lab.pod_list()).encode() if allowed else b"Unauthorized"
            handler.send(body, 200 if allowed else 401)

        account = lab.directory / "service-account"
        account.mkdir()
        authority.cert_pem.write_to_path(str(account / "ca.crt"))
        (account / "token").write_text(token, encoding="ascii")
        (account / "token").chmod(0o600)
        user_pod, root_pod = lab.pod("of-a-user"), lab.pod("of-root", driver="systemd")
        # The first process of a container is the "other process" of each caller in it.
        waiting = ("sleep", "infinity")
        user = user_pod.container("app", argv=waiting, uid=_USER, gid=_USER, env={"WHO": "user"})
        # Pods of their own: a pid is looked for among all processes of a pod, in no order.
        root, bare = (
            pod.container("app", argv=[*with_capabilities(*capabilities), *waiting])
            for pod, capabilities in (
                (root_pod, RUNTIME_DEFAULT),
                (lab.pod("of-bare-root"), ()),
            )
        )
        context = context_of(authority.issue_cert(address))
        with serving(KubeletDouble(answer, context, (address, _KUBELET_PORT))) as kubelet:
            yield LabNode(lab, kubelet, account, user, root, bare)


def free_loopback(port: int) -> str:
    """An address of 127.0.0.0/8 on which no process listens at that port, chosen by chance."""
    while True:
        octets = random.sample(range(1, 255), 3)
        address = "127." + ".".join(map(str, octets))
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) != 0:
                return address
