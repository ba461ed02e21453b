"""Wire compatibility with a gRPC that is not grpcio's: @grpc/grpc-js on Node.js."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.nodes.agent_node import Node

pytestmark = pytest.mark.xdist_group("service")

PACKAGES = ("@grpc/grpc-js@1.14.7", "protobufjs@8.8.1")


@pytest.fixture(scope="module")
def modules() -> Path:
    """Install the pinned packages once per machine."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm (Debian package npm), for a gRPC of another language")
    folder = Path.home() / ".cache" / "netutil" / "node-1"
    if not (folder / "node_modules" / "protobufjs").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--silent", "--no-fund", "--prefix", str(folder), *PACKAGES],
            check=True,
            timeout=150,
        )
    return folder / "node_modules"


def test_grpc_js_gets_the_sidecars_answers(node: Node, modules: Path) -> None:
    program = shutil.which("node")
    assert program is not None
    done = node.feed_app.run(
        [program, str(Path(__file__).with_name("sidecar_client.js")), "/etc/netutil/net.sock"],
        env={"NODE_PATH": str(modules), "WHO": "js", "OPENSSL_CONF": "/dev/null"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == (
        '{"cpuset":"0","who":"js","refused":"NOT_FOUND","interfaces":["eth0","net1"]}'
    )
