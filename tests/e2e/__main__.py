"""Run the end-to-end tests: `python -m tests.e2e`.

On this machine: a real node by itself, and beside it two whole clusters, each in a place of its
own; what the clusters' tests say is printed when the node's have ended. With KUBECONFIG set: on
that cluster instead, which needs the agent's image, named in NETUTIL_IMAGE.
Arguments go to pytest; one that begins with tests/ replaces all tests. `--prepare` alone only
makes what needs a package index and minutes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import pytest

from tests.e2e.agent_image import agent_image
from tests.e2e.control_plane import variable
from tests.e2e.kubernetes import CONTROL_PLANE, binaries
from tests.e2e.namespaces import run
from tests.e2e.node import PACKAGES
from tests.support.manifests.kubectl import find_helm, find_kubectl
from tests.support.packages import ensure_installed, unpacked

NODE_TESTS, CLUSTER_TESTS = "tests/e2e/suite", "tests/e2e/cluster"
CSI_TESTS = "tests/e2e/cluster/test_csi.py"
"""They restart the kubelet again and again, and take as long as all others: they have a cluster of
their own."""
PLACE_TESTS = "tests/e2e/test_place.py"
PREPARE = "--prepare"
TIMEOUT_SECONDS = 1800.0
_ETCD = "usr/bin/etcd"
_NEEDS_AN_IMAGE = """\
KUBECONFIG is set, so the end-to-end tests would run on that cluster. They need the agent's image
in NETUTIL_IMAGE, by a name under which the cluster's nodes have it or can pull it:

    docker build -t registry.example.com/netutil:0.1.0 . && docker push …
    kind load docker-image netutil:0.1.0        # on a cluster of kind, instead of a push
    NETUTIL_IMAGE=netutil:0.1.0 make e2e

NETUTIL_COMPONENTS names those of manifests/examples that the cluster needs besides:
self-signed-kubelet for kubelets that signed their own certificates (kind and kubeadm by default).
Without KUBECONFIG a cluster is made on this machine.
"""


def prepared() -> dict[str, str]:
    """Make everything that needs a package index; return the variables that name it."""
    ensure_installed(*PACKAGES)
    # Not installed: the package would start an etcd on this machine.
    commands = {**binaries(["kubelet", *CONTROL_PLANE]), "etcd": unpacked("etcd-server") / _ETCD}
    return {
        **{variable(name): str(path) for name, path in commands.items()},
        "NETUTIL_AGENT_IMAGE": str(agent_image()),
        "KUBECTL": find_kubectl(),
        "HELM": find_helm(),
    }


def node_tests(*arguments: str) -> list[str]:
    """The command that runs the tests of a node by itself."""
    return [sys.executable, "-m", "pytest", *_options(arguments, NODE_TESTS)]


def cluster_tests(*arguments: str) -> list[str]:
    """The command that makes a cluster and runs its tests, as on a user's: with KUBECONFIG set."""
    tests = [sys.executable, "-m", "tests.e2e", *arguments]
    return [sys.executable, "-m", "tests.e2e.control_plane", *tests]


def session(paths: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The command that runs the tests of these paths, which are all of one kind."""
    if all(path.startswith(CLUSTER_TESTS) for path in paths):
        return cluster_tests(*arguments)
    return node_tests(*arguments)


@contextlib.contextmanager
def _beside(*arguments: str) -> Iterator[Callable[[], int]]:
    """Run this program with other arguments; what is given waits, prints, and returns its code."""
    command = ["setpriv", "--pdeathsig=TERM", sys.executable, "-m", "tests.e2e", *arguments]
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):

        def ended() -> int:
            code = process.wait()
            output.seek(0)
            sys.stdout.flush()
            shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.flush()
            return code

        try:
            yield ended
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)  # as the terminal would


def on_the_users_cluster(arguments: Sequence[str]) -> int:
    """Run the tests of a cluster on that of KUBECONFIG."""
    if not os.environ.get("NETUTIL_IMAGE"):
        print(_NEEDS_AN_IMAGE, file=sys.stderr)
        return int(pytest.ExitCode.USAGE_ERROR)
    os.environ["NETUTIL_CLUSTER"] = os.environ["KUBECONFIG"]
    return int(pytest.main(_options(arguments, CLUSTER_TESTS)))


def _place_tests(arguments: Sequence[str]) -> int:
    """Run the tests of what a run leaves: they make places, so they stand outside of one."""
    os.environ["NETUTIL_PLACE"] = "1"
    return int(pytest.main(_options(arguments, PLACE_TESTS)))


def _options(arguments: Sequence[str], usual: str) -> list[str]:
    """In one process: there is one node."""
    options = ["-n", "0", "-p", "no:cacheprovider", "--timeout", "900", "-v"]
    return [*options, *arguments, *(() if _paths(arguments) else (usual,))]


def _paths(arguments: Sequence[str]) -> list[str]:
    return [one for one in arguments if one.startswith("tests/")]


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Return pytest's exit code, the worst of them."""
    signal.signal(signal.SIGTERM, _end)
    arguments = sys.argv[1:]
    if os.environ.get("KUBECONFIG"):
        return on_the_users_cluster(arguments)
    environment, paths = prepared(), _paths(arguments)
    if arguments == [PREPARE]:
        return 0

    def run_here(command: Sequence[str]) -> int:
        return run(command, environment=environment, timeout_seconds=TIMEOUT_SECONDS)

    try:
        if paths:
            return run_here(session(paths, arguments))
        others = (f"--ignore={CSI_TESTS}", CLUSTER_TESTS)
        with _beside(*arguments, CSI_TESTS) as csi, _beside(*arguments, *others) as cluster:
            codes = [run_here(node_tests(*arguments)), cluster(), csi(), _place_tests(arguments)]
    except KeyboardInterrupt:
        return int(pytest.ExitCode.INTERRUPTED)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
