"""The switch that confines agents of the lab gives them the hardened manifest's privileges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.lab.agent import COMMAND
from tests.support.lab.confined import confined
from tests.support.lab.observing import needs_lab
from tests.support.manifests.privileges import hardened_capabilities, mask

FIELDS = ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
TRY_TO_WRITE = """
import json, pathlib
found = {}
for path in json.loads(__import__("sys").argv[1]):
    try:
        pathlib.Path(path, "netutil-written").touch()
    except OSError as error:
        found[path] = error.errno
    else:
        pathlib.Path(path, "netutil-written").unlink()
        found[path] = 0
print(json.dumps(found))
"""
READ_ONLY = 30  # EROFS


def place(lab: Lab) -> Path:
    root = lab.directory / "root"
    root.mkdir()
    return root


@pytest.mark.root
@needs_lab
def test_a_confined_agent_has_the_hardened_variants_privileges(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    pod_list = lab.write_pod_list()
    flags = [f"--socket={lab.socket}", f"--admin-socket={lab.admin_socket}"]
    argv = [*COMMAND, *flags, f"--pod-source=file:{pod_list}", "--metrics-address="]
    writable = (lab.socket.parent, lab.admin_socket.parent)
    agent = lab.start_agent(confined(argv, place(lab), writable), "")
    lines = Path(f"/proc/{agent.pid}/status").read_text(encoding="utf-8").split("\n")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    rights = f"{mask(hardened_capabilities()):016x}"
    assert [status[one] for one in FIELDS] == [rights, rights, rights, "1", "2"]
    done = container.run([sys.executable, "-m", "netutil.client", "all", "-o", "json"])
    answer = json.loads(done.stdout)
    assert answer["pod"]["name"] == "web"
    assert answer["environment"] is not None and answer["cpu"] is not None
    assert answer["interfaces"]["link_error"]["reason"] == "NETWORK_NAMESPACE_NOT_READABLE"
    assert agent.stop() == 0


@pytest.mark.root
@needs_lab
def test_it_can_write_to_socket_directories_and_its_tmp_only(lab: Lab) -> None:
    own = str(lab.socket.parent)
    others = ["/", "/etc", "/tmp", str(lab.directory), "/sys/fs/cgroup"]
    paths = json.dumps([own, "/run/tmp", *others])
    command = confined(
        [sys.executable, "-c", TRY_TO_WRITE, paths], place(lab), (lab.socket.parent,)
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found.pop(own), found.pop("/run/tmp")) == (0, 0)
    assert found == dict.fromkeys(others, READ_ONLY)
