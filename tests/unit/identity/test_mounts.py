"""The agent's own view of the host's cgroup mounts, among mounts that others named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree

READ = "from netutil.agent.identity import cgroup_mounts as m; print(m.read_cgroup_tree('/'))"


@pytest.mark.root
@pytest.mark.parametrize("name", [b"not UTF-8 \xff", b"carriage\rreturn", b"\xe2\x80\xa8", b"a\nb"])
def test_a_mount_point_of_any_name_hides_no_hierarchy(tmp_path: Path, name: bytes) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount namespace")
    place = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(place)
    mount_and_read = 'mount -t tmpfs none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount_and_read, "sh", place, sys.executable, READ],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == str(read_cgroup_tree("/"))
