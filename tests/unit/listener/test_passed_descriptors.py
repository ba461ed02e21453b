"""A peer cannot pass file descriptors to the agent, where the kernel lets a socket refuse them."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest
from netutil.agent.listener.passed_descriptors import can_refuse_descriptors, refuse_descriptors
from netutil.agent.listener.unix_socket import listen


def passed(client: socket.socket) -> None:
    """Send a byte with a descriptor (SCM_RIGHTS)."""
    descriptors = array.array("i", [client.fileno()])
    client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


def test_this_kernel_is_known_to_refuse_descriptors_or_not() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release >= (6, 16):
        assert can_refuse_descriptors()


def test_descriptors_passed_to_an_accepted_socket_are_refused(tmp_path: Path) -> None:
    listener = listen(str(tmp_path / "net.sock"), mode=0o666, directory_mode=0o755)
    with listener.connection, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "net.sock"))
        accepted, _ = listener.connection.accept()
        with accepted:
            if not can_refuse_descriptors():
                passed(client)
                return
            with pytest.raises(PermissionError):
                passed(client)
            client.send(b"y")
            assert accepted.recv(10) == b"y"


def test_descriptors_passed_to_a_connected_socket_are_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if refuse_descriptors(ours):
            with pytest.raises(PermissionError):
                passed(theirs)
