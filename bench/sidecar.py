"""The stand-in for the sidecar: the plainest gRPC server in Python, for the pod that it is in.

`python -m bench.sidecar SOCKET ANNOTATION`. It answers the sidecar's three methods from its own
`/proc` and cgroup, as a container beside the application would; ANNOTATION is the file that a
downward API volume holds the pod's network status in.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc


class Sidecar(netutil_pb2_grpc.NetUtilServicer):
    """The answers of the sidecar, in as little code as possible."""

    def __init__(self, annotation: Path) -> None:
        self._annotation = annotation

    def GetCPUInfo(self, request: api.CPURequest, context: Any) -> api.CPUResponse:
        """Return the CPUs that the process may run on."""
        del context
        for line in Path(f"/proc/{request.pid or 'self'}/status").read_text().split("\n"):
            if line.startswith("Cpus_allowed_list:"):
                return api.CPUResponse(cpuset=line.split()[1])
        return api.CPUResponse()

    def GetEnv(self, request: api.EnvRequest, context: Any) -> api.EnvResponse:
        """Return the environment of the process."""
        del context
        block = Path(f"/proc/{request.pid or 'self'}/environ").read_text()
        pairs = (entry.split("=", 1) for entry in block.split("\0") if "=" in entry)
        return api.EnvResponse(envs=dict(pairs))

    def GetNetworkStatus(
        self, request: api.NetworkStatusRequest, context: Any
    ) -> api.NetworkStatusResponse:
        """Return the networks of the annotation."""
        del request, context
        fields = ("name", "interface", "mac", "ips")
        return api.NetworkStatusResponse(
            status=[
                api.NetworkStatus(**{name: one[name] for name in fields if name in one})
                for one in json.loads(self._annotation.read_text())
            ]
        )


def main() -> None:
    """Serve until the process is killed."""
    socket, annotation = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    netutil_pb2_grpc.add_NetUtilServicer_to_server(Sidecar(Path(annotation)), server)  # type: ignore[abstract]
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
