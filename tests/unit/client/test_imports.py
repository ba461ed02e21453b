"""The client library loads few modules."""

from __future__ import annotations

import subprocess
import sys

import pytest


def modules_after(script: str) -> set[str]:
    probe = f"import sys\n{script}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "NodeClient", "AsyncNodeClient"])
def test_the_client_loads_neither_kubernetes_nor_the_agent(name: str) -> None:
    loaded = modules_after(f"from netutil.client import {name}")
    assert "grpc" in loaded
    assert not {module for module in loaded if module.split(".")[0] == "kubernetes"}
    assert not {module for module in loaded if module.startswith("netutil.agent")}
    assert not {module for module in loaded if module.startswith(("yaml", "google.rpc"))}


_COMMAND = """
from netutil.client.cli.main import main
try: main([{argument!r}])
except SystemExit: pass
"""


@pytest.mark.parametrize(
    "script",
    [
        "import netutil.client",
        "from netutil.client import NotFound, CPU",
        _COMMAND.format(argument="--help"),
        _COMMAND.format(argument="--version"),
        _COMMAND.format(argument="--bad"),
    ],
)
def test_grpc_and_protobuf_are_not_loaded_before_they_are_needed(script: str) -> None:
    loaded = modules_after(script)
    assert not loaded & {"grpc", "google.protobuf", "yaml", "asyncio"}


def test_every_exported_name_is_there() -> None:
    import netutil.client

    for name in netutil.client.__all__:
        assert getattr(netutil.client, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    import netutil.client

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = netutil.client.nothing
