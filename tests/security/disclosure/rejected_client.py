"""A pod's program that is refused in every way, and prints each error.

`python rejected_client.py all VICTIM_PID`; `python rejected_client.py flood COUNT` asks for a
variable that is not set, again and again.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

PATH = __file__
SOCKET = "unix:/etc/netutil/net.sock"
FORGED = 'x\n{"event": "error"}\u2028\x1b[2J' + "9" * 3000


def everything(stub: netutil_pb2_grpc.NetUtilStub, victim: str) -> list[str]:
    questions: tuple[tuple[Any, Any], ...] = (
        *((stub.GetEnv, api.EnvRequest(pid=pid)) for pid in (victim, "1", "0", "-1", FORGED)),
        (stub.GetEnv, api.EnvRequest(key="NOT_SET")),
        (stub.GetEnv, api.EnvRequest(key=FORGED)),
        (stub.GetNetworkStatus, api.NetworkStatusRequest(int="net9")),
        (stub.GetNetworkStatus, api.NetworkStatusRequest(int=FORGED)),
        (stub.GetNetworkStatus, api.NetworkStatusRequest()),
        (stub.GetInterfaces, api.InterfacesRequest(pid=victim)),
        (stub.GetResource, api.ResourceRequest()),
        (stub.GetHugepages, api.HugepagesRequest(pid=victim)),
        (stub.GetAll, api.AllRequest(pid=victim)),
        (stub.GetAll, api.AllRequest(pid=FORGED)),
    )
    results = []
    for method, request in questions:
        try:
            results.append(str(method(request, timeout=20)))
        except grpc.RpcError as error:
            results.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
    return results


def flood(stub: netutil_pb2_grpc.NetUtilStub, count: int) -> list[str]:
    for _ in range(count):
        try:
            stub.GetEnv(api.EnvRequest(key="NOT_SET"), timeout=20)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, f"{error.code()} {error.details()}"
    return []


if __name__ == "__main__":
    with grpc.insecure_channel(SOCKET) as channel:
        asked = netutil_pb2_grpc.NetUtilStub(channel)
        what, value = sys.argv[1:]
        print(json.dumps(flood(asked, int(value)) if what == "flood" else everything(asked, value)))
