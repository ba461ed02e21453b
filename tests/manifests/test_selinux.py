"""The init container that labels the socket's directory."""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.config import parse

from tests.support.manifests.documents import Manifest, agent_of, initial_of, pod_of
from tests.support.manifests.overlays import BASES, objects_of, with_component

LABEL = b"system_u:object_r:container_file_t:s0\0"
NAME = "security.selinux"


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def labeller(objects: list[Manifest]) -> Manifest:
    (found,) = (one for one in initial_of(objects) if one["name"] == "selinux-label")
    return found


def run(program: str, directory: Path, filesystems: str) -> None:
    """Run the container's program on another directory, with that text in /proc/filesystems."""

    def opened(path: str, **_: Any) -> io.StringIO:
        assert path == "/proc/filesystems"
        return io.StringIO(filesystems)

    assert program.count('"/run/netutil"') == 1
    program = program.replace('"/run/netutil"', repr(str(directory)))
    exec(program, {"__builtins__": {**vars(builtins), "open": opened}})  # noqa: S102


def program_of(objects: list[Manifest]) -> str:
    container = labeller(objects)
    assert container["command"] == ["python", "-I", "-c"]
    (program,) = container["args"]
    return str(program)


def test_it_labels_the_directory_of_the_socket(base: str) -> None:
    objects = with_component(base, "selinux")
    (mount,) = labeller(objects)["volumeMounts"]
    (volume,) = (one for one in pod_of(objects)["volumes"] if one["name"] == mount["name"])
    directory = str(Path(parse([], {}).sockets.pods).parent)
    assert (mount["mountPath"], volume["hostPath"]["path"]) == (directory, directory)


@pytest.mark.root
def test_it_sets_the_label_where_the_kernel_has_selinux(base: str, tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, NAME, b"probe\0")
    except OSError as error:
        pytest.skip(f"no security attributes on {tmp_path}: {error}")
    run(program_of(with_component(base, "selinux")), tmp_path, "nodev\tselinuxfs\n\text4\n")
    assert os.getxattr(tmp_path, NAME) == LABEL


def test_it_changes_nothing_without_selinux(base: str, tmp_path: Path) -> None:
    run(program_of(with_component(base, "selinux")), tmp_path, "nodev\tnotselinuxfs\n\text4\n")
    assert NAME not in os.listxattr(tmp_path)


def test_its_failure_ends_the_container(base: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(program_of(with_component(base, "selinux")), tmp_path / "absent", "nodev\tselinuxfs\n")


def test_it_has_no_capability_and_may_relabel(base: str) -> None:
    context = labeller(with_component(base, "selinux"))["securityContext"]
    assert context == {
        "runAsUser": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "spc_t"},
    }


def test_it_leaves_the_agent_and_its_image_alone(base: str) -> None:
    objects = with_component(base, "selinux")
    before = {one["name"] for one in initial_of(objects_of(base))}
    assert {one["name"] for one in initial_of(objects)} == before | {"selinux-label"}
    assert labeller(objects)["image"] == agent_of(objects)["image"]
    plain = with_component(base, "networkpolicy")
    assert agent_of(objects) == agent_of(plain)
