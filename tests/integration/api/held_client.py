"""A client in a pod that asks for its CPUs over several connections for each line that it reads.

`held_client.py CONNECTIONS`: for each line on standard input, the answers of all connections are
printed as one JSON list: every second connection asks for everything, and takes the CPUs from
it. Another connection asks all the time meanwhile.
"""

from __future__ import annotations

import json
import sys
import threading

import grpc
from google.protobuf import json_format
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

_SOCKET = "unix:/etc/netutil/net.sock"
_SECONDS = 20


def connect() -> netutil_pb2_grpc.NetUtilStub:
    options = (("grpc.use_local_subchannel_pool", 1),)
    return netutil_pb2_grpc.NetUtilStub(grpc.insecure_channel(_SOCKET, options))


def ask_all_the_time() -> None:
    stub = connect()
    while True:
        stub.GetCPUInfo(api.CPURequest(), timeout=_SECONDS)


def main() -> None:
    stubs = [connect() for _ in range(int(sys.argv[1]))]
    threading.Thread(target=ask_all_the_time, daemon=True).start()
    for _ in sys.stdin:
        calls = [
            stub.GetAll.future(api.AllRequest(), timeout=_SECONDS)
            if number % 2
            else stub.GetCPUInfo.future(api.CPURequest(), timeout=_SECONDS)
            for number, stub in enumerate(stubs)
        ]
        found = [call.result() for call in calls]
        answers = [
            json_format.MessageToDict(
                one.cpu if isinstance(one, api.AllResponse) else one,
                preserving_proto_field_name=True,
            )
            for one in found
        ]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
