"""A node with a running agent, a hostile pod and a victim, whose every fact has the secret."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab import Lab, LabAgent, LabContainer, LabPod
from tests.support.lab.agent import COMMAND
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.client_driver import SECRET
from tests.support.nodes.measures import metric_total

USER = 12345
"""Who unprivileged workloads are."""
VICTIM_CPU = "0"


@dataclass(frozen=True, slots=True)
class Stage:
    """A lab with a running agent. Both pods have one container each."""

    lab: Lab
    agent: LabAgent
    victim: LabContainer
    hostile: LabContainer

    def await_connections(self, least: int) -> None:
        """Return when the agent has admitted that many connections that are open now."""
        deadline = time.monotonic() + 20
        while self._connections() < least:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _connections(self) -> int:
        return int(metric_total(self.agent, "netutil_open_connections"))


def victim_pod(lab: Lab, name: str = "victim", **options: object) -> LabPod:
    """Return a pod that has the secret in every fact that can hold it."""
    network = [{"name": f"telco/{SECRET}", "interface": "eth0", "ips": ["192.0.2.77"]}]
    return lab.pod(
        name,
        namespace="telco",
        labels={"password": SECRET},
        annotations={NETWORK_STATUS: json.dumps(network), "password": SECRET},
        **options,  # type: ignore[arg-type]
    )


@contextmanager
def stage(command: Sequence[str] = COMMAND) -> Iterator[Stage]:
    """Set the stage and clear it."""
    with Lab() as lab:
        victim = victim_pod(lab).container("app", env={"PASSWORD": SECRET}, cpus=VICTIM_CPU)
        hostile = lab.pod("hostile").container("app", env={"WHO": "hostile"})
        yield Stage(lab, lab.agent(command=command), victim, hostile)


def setuid_python(lab: Lab) -> Path:
    """Return a Python of root that anybody may execute, as root."""
    path = lab.directory / "setuid-python"
    if not path.exists():
        shutil.copy(Path(sys.executable).resolve(), path)
        os.chmod(path, stat.S_ISUID | 0o755)  # noqa: S103 - the attack
    return path


OLD_KERNEL = (
    "import sys; from netutil.agent.identity import pidfd; pidfd.SO_PEERPIDFD = 30000\n"
    "from netutil.agent.__main__ import main; sys.exit(main())"
)
"""An agent on a kernel that does not know SO_PEERPIDFD."""
