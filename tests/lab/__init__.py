"""Real "pods" without Kubernetes: `with Lab() as lab: lab.pod("web").container("app")`."""

from tests.lab.agent import AgentFailed, LabAgent
from tests.lab.lab import Lab, LabUnavailable, why_no_lab
from tests.lab.network import Interface
from tests.lab.pod import LabContainer, LabPod
from tests.lab.processes import LabProcess, LaunchFailed

__all__ = [
    "AgentFailed",
    "Interface",
    "Lab",
    "LabAgent",
    "LabContainer",
    "LabPod",
    "LabProcess",
    "LabUnavailable",
    "LaunchFailed",
    "why_no_lab",
]
