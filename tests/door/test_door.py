"""Who is let in, under which name, how many of them, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from netutil.agent.door.entrance import TOLD
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import ConnectionTable
from netutil.agent.errors import Denied, Reason, Unidentified
from netutil.agent.identity.peer import Peer

from tests.door.rig import (
    POD,
    Rig,
    door_before,
    each_from_a_process_of_its_own,
    echo,
    eventually,
    open_descriptors,
    peer_of,
)

OTHER_POD = "99999999-8888-7777-6666-555555555555"


async def exchange(rig: Rig) -> bytes:
    reader, writer = await rig.connect()
    writer.write(b"echo")
    writer.write_eof()
    answer = await reader.read(-1)
    writer.close()
    return answer


async def test_the_server_sees_the_name_under_which_the_peer_is_entered(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        client = rig.connect_raw()
        await eventually(lambda: len(rig.names) == 1)
        entry = rig.table.of_grpc_peer(f"unix-abstract:{rig.names[0]}")
        assert entry.peer is not None
        assert entry.peer.credentials.pid == os.getpid()
        assert entry.key == entry.peer.pod_key
        client.close()


async def test_names_are_random_and_never_used_twice(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        for _ in range(50):
            await exchange(rig)
        assert len(set(rig.names)) == 50
        assert all(len(name) >= 32 for name in rig.names)
        known = "netutil-"  # what follows it is drawn anew: no two begin alike by chance
        assert all(name.startswith(known) for name in rig.names)
        assert len({name[len(known) :][:12] for name in rig.names}) == 50


def test_a_name_that_the_door_did_not_give_is_refused() -> None:
    table = ConnectionTable()
    for name in ("unix-abstract:netutil-1", "unix:/run/x", "ipv4:127.0.0.1:1", ""):
        with pytest.raises(Unidentified) as refused:
            table.of_grpc_peer(name)
        assert refused.value.reason is Reason.CONNECTION_UNKNOWN


async def test_an_entry_ends_with_its_connection_and_lets_its_process_go(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        assert await exchange(rig) == b"echo"
        before = open_descriptors()
        client = rig.connect_raw()
        await eventually(lambda: len(rig.names) == 2)
        (entry,) = rig.table
        client.close()
        await eventually(lambda: len(rig.table) == 0)
        assert entry.peer is not None
        assert not entry.peer.process.alive()
        with pytest.raises(Unidentified):
            rig.table.of_grpc_peer(f"unix-abstract:{entry.name}")
        assert open_descriptors() <= before


async def test_a_peer_that_cannot_be_identified_is_let_in_with_its_refusal(tmp_path: Path) -> None:
    def refuse(_: socket.socket) -> Peer:
        raise Denied(Reason.NOT_A_POD, "No pod.")

    async with door_before(echo, tmp_path, identify=refuse) as rig:
        client = rig.connect_raw()
        await eventually(lambda: len(rig.names) == 1)
        entry = rig.table.of_grpc_peer(f"unix-abstract:{rig.names[0]}")
        assert entry.peer is None
        assert entry.refusal is not None
        assert entry.refusal.reason is Reason.NOT_A_POD
        assert rig.door.counts.refused == 1
        client.close()


async def test_past_a_pods_limit_calls_are_told_and_past_that_the_door_closes(
    tmp_path: Path,
) -> None:
    async with door_before(echo, tmp_path, limits=Limits(1000, 3)) as rig:
        clients = [rig.connect_raw() for _ in range(3 + TOLD + 5)]
        await eventually(lambda: rig.door.counts.accepted == len(clients))
        refusals = [entry.refusal for entry in rig.table if entry.refusal is not None]
        assert {refusal.reason for refusal in refusals} == {Reason.TOO_MANY_CONNECTIONS_OF_POD}
        assert (len(rig.table), len(refusals)) == (3 + TOLD, TOLD)
        assert rig.door.counts.closed_at_once == 5
        for client in clients:
            client.close()
        await eventually(lambda: len(rig.table) == 0)
        assert await exchange(rig) == b"echo"


async def test_one_pods_limit_is_no_other_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_from_a_process_of_its_own(monkeypatch)
    pods = [POD] * 20 + [OTHER_POD]

    def identify(connection: socket.socket) -> Peer:
        return peer_of(connection, pods.pop(0))

    async with door_before(echo, tmp_path, identify=identify, limits=Limits(1000, 2)) as rig:
        clients = [rig.connect_raw() for _ in range(20)]
        assert await exchange(rig) == b"echo"
        await eventually(lambda: [e.refusal for e in rig.table].count(None) == 2)
        for client in clients:
            client.close()


async def test_a_process_of_a_pod_past_its_limits_is_not_identified_again(tmp_path: Path) -> None:
    identified = 0

    def identify(connection: socket.socket) -> Peer:
        nonlocal identified
        identified += 1
        return peer_of(connection)

    async with door_before(echo, tmp_path, identify=identify, limits=Limits(1000, 2)) as rig:
        clients = [rig.connect_raw() for _ in range(100)]
        await eventually(lambda: rig.door.counts.accepted == len(clients))
        assert len(rig.table) == 2 + TOLD
        # Once more than are let in, and again each second.
        assert identified < len(rig.table) + 20
        assert rig.door.counts.closed_at_once == len(clients) - len(rig.table)
        for client in clients:
            client.close()


async def test_past_the_limit_of_all_calls_are_told_and_past_that_the_door_closes(
    tmp_path: Path,
) -> None:
    async with door_before(echo, tmp_path, limits=Limits(4, 1000)) as rig:
        clients = [rig.connect_raw() for _ in range(4 + TOLD + 5)]
        await eventually(lambda: rig.door.counts.accepted == len(clients))
        reasons = [e.refusal.reason for e in rig.table if e.refusal is not None]
        assert set(reasons) == {Reason.TOO_MANY_CONNECTIONS}
        assert len(rig.table) == 4 + TOLD
        assert rig.door.counts.closed_at_once == 5
        for client in clients:
            client.close()


async def test_half_open_peers_cost_their_entry_only_and_others_are_served(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        idle = [rig.connect_raw() for _ in range(50)]
        assert await exchange(rig) == b"echo"
        assert len(rig.table) >= 50
        for client in idle:
            client.close()
        await eventually(lambda: len(rig.table) == 0)


async def test_who_waits_in_the_queue_at_the_close_is_let_in(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        clients = [rig.connect_raw() for _ in range(10)]
        rig.door.close()  # before the loop had a chance to accept
        assert "net.sock" not in os.listdir(tmp_path)
        await eventually(lambda: len(rig.names) == 10)
        rig.door.close()
        for client in clients:
            client.close()


async def test_dropping_all_ends_every_connection(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        reader, writer = await rig.connect()
        await eventually(lambda: len(rig.names) == 1)
        await rig.door.drop_all()
        assert await reader.read(-1) == b""
        assert len(rig.table) == 0
        writer.close()


async def test_without_a_server_behind_it_the_peer_is_closed_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    async with door_before(echo, tmp_path) as rig:
        os.unlink(f"{tmp_path}/private.sock")
        before = open_descriptors()
        reader, writer = await rig.connect()
        assert await reader.read(-1) == b""
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: len(rig.table) == 0)
        await eventually(lambda: open_descriptors() <= before)


async def test_who_has_hung_up_is_not_looked_at(tmp_path: Path) -> None:
    looked: list[int] = []

    def look(connection: socket.socket) -> Peer:
        looked.append(1)
        return peer_of(connection)

    async with door_before(echo, tmp_path, identify=look) as rig:
        client = rig.connect_raw()
        client.send(b"a question")
        client.close()
        await eventually(lambda: rig.door.counts.hung_up == 1)
        assert not looked
        assert len(rig.table) == 0


async def test_who_has_only_ended_its_sending_is_answered(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        client = rig.connect_raw()
        client.send(b"a question")
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(20):
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"a question"
        client.close()
        assert rig.door.counts.hung_up == 0
