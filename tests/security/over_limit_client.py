"""A pod's program that exceeds its limits, with gRPC itself, and prints the statuses.

Called as `python over_limit_client.py KIND …`:

`burst PATH COUNT`: calls of the method at PATH, one after the other until one is over a limit, at
most COUNT; then one call of GetPod, and, if GetPod was refused, one more after the retry delay.
`streams PATH COUNT`: COUNT streams at once, held until standard input ends.
`metadata COUNT SIZE`: one call with COUNT fields of metadata, then one without.
`connections COUNT`: GetPod over each of COUNT connections; then all connections but the last are
closed, and the last calls again after the retry delay.
The status of a call: [code, reason, retry delay in seconds or null].
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

PATH = __file__
SOCKET = "unix:/etc/netutil/net.sock"
GET_POD = "/v1alpha.NetUtil/GetPod"
Status = tuple[str, str, float | None]


def channel() -> grpc.Channel:
    return grpc.insecure_channel(SOCKET, options=[("grpc.use_local_subchannel_pool", 1)])


def status_of(error: Any) -> Status:
    reason, delay = "", None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
    return error.code().name, reason, delay


def ask(open_channel: grpc.Channel, path: str, more: Sequence[tuple[str, str]] = ()) -> Status:
    try:
        method: Any = open_channel.unary_unary(path)
        method(b"", timeout=20, metadata=more)
    except grpc.RpcError as error:
        return status_of(error)
    return "OK", "", None


def again(open_channel: grpc.Channel) -> dict[str, Status]:
    last = ask(open_channel, GET_POD)
    if last[2] is None:
        return {"last": last}
    time.sleep(last[2])
    return {"last": last, "later": ask(open_channel, GET_POD)}


def burst(path: str, count: int) -> dict[str, Any]:
    with channel() as one:
        answers = [ask(one, path)]
        while len(answers) < count and answers[-1][0] != "RESOURCE_EXHAUSTED":
            answers.append(ask(one, path))
        return {"answers": answers, **again(one)}


def streams(path: str, count: int) -> None:
    with channel() as one:
        begun: list[Status | None] = [None] * count

        def hold(number: int) -> None:
            method: Any = one.stream_stream(path)
            try:
                for _ in method(iter([b""]), timeout=60):
                    begun[number] = ("OK", "", None)
            except grpc.RpcError as error:
                begun[number] = begun[number] or status_of(error)

        for number in range(count):
            threading.Thread(target=hold, args=(number,), daemon=True).start()
        while None in begun:
            time.sleep(0.01)
        print(json.dumps({"answers": begun}), flush=True)
        sys.stdin.read()


def metadata(count: int, size: int) -> dict[str, Any]:
    with channel() as one:
        return {"answers": [ask(one, GET_POD, [("x-more", "y" * size)] * count), ask(one, GET_POD)]}


def connections(count: int) -> dict[str, Any]:
    held = [channel() for _ in range(count)]
    answers = [ask(one, GET_POD) for one in held]
    for one in held[:-1]:
        one.close()
    return {"answers": answers, **again(held[-1])}


if __name__ == "__main__":
    match sys.argv[1:]:
        case "burst", path, count:
            print(json.dumps(burst(path, int(count))))
        case "streams", path, count:
            streams(path, int(count))
        case "metadata", count, size:
            print(json.dumps(metadata(int(count), int(size))))
        case "connections", count:
            print(json.dumps(connections(int(count))))
