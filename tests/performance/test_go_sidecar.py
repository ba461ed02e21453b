"""The Go sidecar that the agent is compared with answers what the agent answers."""

from __future__ import annotations

import json
import sys

import pytest

from bench import go_sidecar, node
from tests.support import golang
from tests.support.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.programs import needs

pytestmark = [pytest.mark.root, needs_lab]
ASK = """
import json, os, sys
import grpc
from google.protobuf.json_format import MessageToDict
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc

pid = str(os.getpid())
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    stub = netutil_pb2_grpc.NetUtilStub(channel)
    networks = stub.GetNetworkStatus(api.NetworkStatusRequest(pid=pid)).status
    print(json.dumps({
        "cpuset": stub.GetCPUInfo(api.CPURequest(pid=pid)).cpuset,
        "envs": dict(stub.GetEnv(api.EnvRequest(pid=pid)).envs),
        "networks": [[one.name, one.interface, one.mac, list(one.ips)] for one in networks],
    }))
"""


def test_the_go_sidecar_answers_as_the_agent_does() -> None:
    needs("go", path=golang.BINARIES)
    needs("protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    with Lab() as lab:
        app = node.app(node.pod(lab, "upf"))
        lab.agent()
        socket = lab.socket.parent / "sidecar.sock"
        with go_sidecar.running(app, socket, lab.directory):
            answers = []
            for name in ("net", "sidecar"):
                argv = [sys.executable, "-c", ASK, f"/etc/netutil/{name}.sock"]
                done = app.run(argv, env=node.ENV, timeout=60)
                assert done.returncode == 0, done.stderr
                answers.append(json.loads(done.stdout))
    assert answers[1] == answers[0]
    assert answers[1]["cpuset"] and answers[1]["envs"] and len(answers[1]["networks"]) == 2
