"""Calls by gRPC from within a pod, with requests and answers as JSON."""

from __future__ import annotations

import json
from typing import Any

from tests.support.lab import LabContainer
from tests.support.nodes.agent_node import ask

SCRIPT = """
import sys, grpc, json
from google.protobuf import json_format
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc
stub = netutil_pb2_grpc.NetUtilStub(grpc.insecure_channel("unix:/etc/netutil/net.sock"))
method, request = sys.argv[1], getattr(api, sys.argv[2])(**json.loads(sys.argv[3]))
try:
    answer = getattr(stub, method)(request, timeout=20)
except grpc.RpcError as error:
    print(json.dumps({"code": error.code().name, "message": error.details()}))
else:
    print(json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True)))
"""


def call(container: LabContainer, method: str, request: str, **fields: object) -> Any:
    return ask(container, "-c", SCRIPT, method, request, json.dumps(fields))
