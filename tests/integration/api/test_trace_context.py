"""A refusal has the trace of the call that was refused."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.lab import Lab
from tests.support.lab.observing import needs_lab

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASK = f"""
import grpc
from netutil.v1alpha import netutil_pb2, netutil_pb2_grpc

with grpc.insecure_channel("unix:/etc/netutil/net.sock") as channel:
    agent = netutil_pb2_grpc.NetUtilStub(channel)
    for headers in ((("traceparent", "00-{TRACE}-{SPAN}-01"),), (("traceparent", "00-x"),), ()):
        try:
            agent.GetEnv(netutil_pb2.EnvRequest(key="NOT_SET"), metadata=headers, timeout=20)
        except grpc.RpcError as error:
            print(error.code().name)
"""


@pytest.mark.root
@needs_lab
def test_a_refused_call_is_logged_with_its_callers_trace() -> None:
    with Lab() as lab:
        app = lab.pod("web").container("app")
        lab.write_pod_list()
        agent = lab.agent("--log-format=json")
        done = app.run([sys.executable, "-c", ASK])
        assert done.stdout.split() == [b"NOT_FOUND"] * 3, done.stderr
        assert agent.stop() == 0
        lines = [json.loads(line) for line in agent.stderr_text().splitlines()]
    refusals = [line for line in lines if line.get("stage") == "call"]
    assert [(line.get("trace_id"), line.get("span_id")) for line in refusals] == [
        (TRACE, SPAN),
        (None, None),  # what is not well-formed is ignored
        (None, None),  # and one call's trace is not the next one's
    ]
