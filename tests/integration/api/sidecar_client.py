"""The client of the sidecar that the agent replaces, built only from the published field numbers.

Runs as a process in a pod. It shares no code with this project: the messages are
declared here, by number, and the calls are made with plain gRPC. As that client
does, it sends its own pid as it sees it. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_ONE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_MANY = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

# message: {field: (number, repeated, message type or "")}
MESSAGES: dict[str, dict[str, tuple[int, bool, str]]] = {
    "CPURequest": {"pid": (1, False, "")},
    "CPUResponse": {"cpuset": (1, False, "")},
    "EnvRequest": {"pid": (1, False, ""), "key": (2, False, "")},
    "Entry": {"key": (1, False, ""), "value": (2, False, "")},
    "EnvResponse": {"envs": (1, True, "Entry")},
    "NetworkStatusRequest": {"pid": (1, False, ""), "int": (2, False, "")},
    "NetworkStatus": {
        "name": (1, False, ""),
        "interface": (2, False, ""),
        "mac": (3, False, ""),
        "ips": (4, True, ""),
    },
    "NetworkStatusResponse": {"status": (1, True, "NetworkStatus")},
}


def message_classes() -> dict[str, Any]:
    """Return a class per message, none of them from the project's own proto."""
    file = descriptor_pb2.FileDescriptorProto(name="raw.proto", package="raw", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, repeated, kind) in fields.items():
            message.field.add(
                name=field,
                number=number,
                label=_MANY if repeated else _ONE,
                type=_MESSAGE if kind else _STRING,
                type_name=f".raw.{kind}" if kind else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"raw.{name}"))
        for name in MESSAGES
    }


def main(socket_path: str) -> None:
    """Ask the three questions of the sidecar's sample client."""
    classes = message_classes()
    pid = str(os.getpid())
    with grpc.insecure_channel(f"unix://{socket_path}") as channel:

        def call(method: str, request: str, response: str, **fields: str) -> Any:
            ask = channel.unary_unary(
                f"/v1alpha.NetUtil/{method}",
                request_serializer=classes[request].SerializeToString,
                response_deserializer=classes[response].FromString,
            )
            return ask(classes[request](**fields), timeout=10)

        cpu = call("GetCPUInfo", "CPURequest", "CPUResponse", pid=pid)
        env = call("GetEnv", "EnvRequest", "EnvResponse", pid=pid)
        one = call("GetEnv", "EnvRequest", "EnvResponse", pid=pid, key="WHO")
        net = call("GetNetworkStatus", "NetworkStatusRequest", "NetworkStatusResponse", pid=pid)
    json.dump(
        {
            "pid": pid,
            "cpuset": cpu.cpuset,
            "envs": {entry.key: entry.value for entry in env.envs},
            "one": {entry.key: entry.value for entry in one.envs},
            "status": [[s.name, s.interface, s.mac, list(s.ips)] for s in net.status],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
