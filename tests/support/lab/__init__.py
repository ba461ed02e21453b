"""Real "pods" without Kubernetes: `with Lab() as lab: lab.pod("web").container("app")`."""

from tests.support.lab.agent import AgentFailed, LabAgent
from tests.support.lab.lab import Lab, LabUnavailable, why_no_lab
from tests.support.lab.network import Interface
from tests.support.lab.pod import LabContainer, LabPod
from tests.support.lab.processes import LabProcess, LaunchFailed

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
