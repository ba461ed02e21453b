"""A cluster, as kubectl shows and changes it: the one of KUBECONFIG."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.repository import ROOT

AGENTS = "netutil"  # the manifests' namespace
NAMESPACE = "netutil-e2e"
_DOCUMENTS = ("docs/install.md", "manifests/examples/pod.yaml")


class CommandFailed(Exception):
    """kubectl ended with another exit code than 0."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The path of kubectl, the user's overlay, and the image that the nodes have."""

    kubectl: str
    directory: Path
    image: str

    def attempt(
        self,
        *arguments: str,
        given: str | None = None,
        directory: Path | None = None,
        seconds: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl."""
        return subprocess.run(
            [self.kubectl, *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            cwd=directory or self.directory,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def run(
        self,
        *arguments: str,
        given: str | None = None,
        directory: Path | None = None,
        seconds: float = 120.0,
    ) -> str:
        """Run kubectl and return what it prints. Raises CommandFailed with what it says."""
        done = self.attempt(*arguments, given=given, directory=directory, seconds=seconds)
        if done.returncode != 0:
            raise CommandFailed(f"kubectl {shlex.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def documented(self, command: str, **placeholders: str) -> str:
        """Run a command as it is documented, where a user would; placeholders are then filled.

        Beside the overlay lies a copy of the repository, as docs/install.md asks for.
        """
        text = "".join((ROOT / name).read_text(encoding="utf-8") for name in _DOCUMENTS)
        assert command in text, f"not documented: {command}"
        for placeholder, value in placeholders.items():
            command = command.replace(placeholder, value)
        _, *arguments = shlex.split(command)
        within = "netutil" if "manifests/" in command else "."
        return self.run(*arguments, directory=self.directory / within, seconds=180.0)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects in the tests' namespace, or in their own."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.run("apply", "--namespace", NAMESPACE, "--filename", "-", given=text)

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """Return an object as the API server has it."""
        found: dict[str, Any] = json.loads(
            self.run("get", "--namespace", namespace, kind, name, "--output", "json")
        )
        return found

    def select(self, labels: str, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        """Return the pods with these labels, those that end left out."""
        listed = json.loads(
            self.run("get", "--namespace", namespace, "pods", "-l", labels, "--output", "json")
        )
        return [one for one in listed["items"] if "deletionTimestamp" not in one["metadata"]]

    def agent(self) -> dict[str, Any]:
        """Return the agent's pod of the first node."""
        labels = "app.kubernetes.io/name=netutil,app.kubernetes.io/component=agent"
        agents = self.select(labels, AGENTS)
        return min(agents, key=lambda pod: str(pod["spec"].get("nodeName", "")))

    def wait(self, condition: str, what: str, seconds: int = 90) -> None:
        """Wait until objects of the tests' namespace are so."""
        self.run(
            *("wait", "--namespace", NAMESPACE, f"--for={condition}", f"--timeout={seconds}s"),
            *what.split(),
            seconds=seconds + 30.0,
        )

    def execute(self, pod: str, *command: str, container: str | None = None) -> str:
        """Run a command in a pod of the tests' namespace."""
        which = ("--container", container) if container else ()
        return self.run("exec", "--namespace", NAMESPACE, pod, *which, "--", *command)

    def ask(self, pod: str, *question: str, container: str | None = None) -> dict[str, Any]:
        """Ask the agent from within a pod: `netutil QUESTION`."""
        text = self.execute(pod, "netutil", *question, "--output", "json", container=container)
        answer: dict[str, Any] = json.loads(text)
        return answer

    def logs(self, pod: str, *arguments: str, namespace: str = NAMESPACE) -> str:
        """Return what a pod printed."""
        return self.run("logs", "--namespace", namespace, pod, *arguments)

    def server_minor(self) -> int:
        """Return the API server's minor version."""
        version = json.loads(self.run("version", "--output", "json"))
        return _minor(version["serverVersion"]["gitVersion"])

    def oldest_kubelet_minor(self) -> int:
        """Return the least minor version of the nodes' kubelets."""
        nodes = json.loads(self.run("get", "nodes", "--output", "json"))["items"]
        return min(_minor(node["status"]["nodeInfo"]["kubeletVersion"]) for node in nodes)


def _minor(version: str) -> int:
    found = re.match(r"v1\.(\d+)", version)
    assert found, version
    return int(found[1])
