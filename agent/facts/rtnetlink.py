"""Rtnetlink sockets in other network namespaces, and dumps over them.

A socket belongs to the network namespace in which it was made, for as long as it
is open (network_namespaces(7)). So a thread that exists for nothing else enters
the namespace (setns(2)), opens the socket and ends; no other thread of the agent
ever leaves its own namespace, and nothing can fail on the way back. How much a namespace
holds, and how long that takes, a workload decides: both are bounded.

A process with CAP_NET_ADMIN in a namespace, and so any that may make one, can send messages of any
form to every rtnetlink socket in it, whose port /proc/net/netlink shows. So each socket is
connected to the kernel, which then refuses what others send to its port (netlink_getsockbyportid
in net/netlink/af_netlink.c), but not what they send to a multicast group; and what is received is
of the kernel only if its sender is (`is_of_kernel`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from netutil.agent.errors import FailedPrecondition, Reason, ResourceExhausted
from netutil.agent.yield_cpu import yield_cpu

T = TypeVar("T")
MAX_DUMP_BYTES = 8 * 1024 * 1024
_RECEIVE_SECONDS = 1.0
_RECEIVE_BYTES = 64 * 1024
_EVENT_BUFFER_BYTES = 32 * 1024
_ATTEMPTS = 5
_OF_CALLER = "the caller's network namespace"
_CLONE_NEWNET = 0x40000000
# linux/socket.h, linux/netlink.h: only what a request asks for is dumped.
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
# linux/netlink.h
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLM_F_DUMP_INTR = 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_KERNEL = (0, 0)
"""Port and groups."""
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Message(NamedTuple):
    """One message: its type, and the bytes of the whole of it with its header."""

    type: int
    data: bytes

    @property
    def body(self) -> bytes:
        """Return what follows the header of netlink."""
        return self.data[_HEADER.size :]


def inside(namespace: int, work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread that is in a network namespace, a descriptor of nsfs.

    Waits for it. Raises OSError, EPERM without CAP_SYS_ADMIN (setns(2)), and what `work` raises.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            _enter(namespace)
            done.append(work())
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name="network-namespace", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def open_rtnetlink(namespace: int) -> socket.socket:
    """Return an rtnetlink socket in a network namespace, given as a descriptor of nsfs.

    Raises OSError: EPERM without CAP_SYS_ADMIN (setns(2)).
    """
    return inside(namespace, request_socket)


def request_socket() -> socket.socket:
    """Return an rtnetlink socket for dumps in the network namespace of the calling thread."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        made.settimeout(_RECEIVE_SECONDS)
        made.connect(_KERNEL)
        with contextlib.suppress(OSError):  # before Linux 4.20 the whole of every table comes
            made.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
    except OSError:
        made.close()
        raise
    return made


def event_socket(groups: int) -> socket.socket:
    """Return a socket that receives what the multicast `groups` of rtnetlink are sent.

    In the network namespace of the calling thread. `groups` is a mask: bit n is group n + 1 of
    enum rtnetlink_groups. The socket does not block, and its buffer is small, so that a flood of
    changes soon ends in ENOBUFS, which says all that the rest would.
    """
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER_BYTES)
        made.bind((0, groups))
        made.connect(_KERNEL)
    except OSError:
        made.close()
        raise
    return made


def dump(
    connection: socket.socket, kind: int, request: bytes, namespace: str = _OF_CALLER
) -> tuple[Message, ...]:
    """Return all messages of one dump that nothing changed while it was made.

    Errors name the `namespace` of the connection with these words.

    Raises `ResourceExhausted` if it is larger than `MAX_DUMP_BYTES`, `FailedPrecondition` if it
    changes all the time, OSError if the kernel refuses it, TimeoutError if it does not answer,
    ValueError for a datagram longer than is received (of a device with hundreds of virtual
    functions). After an error the socket is of no more use.
    """
    for sequence in range(1, _ATTEMPTS + 1):
        header = _HEADER.pack(
            _HEADER.size + len(request), kind, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0
        )
        connection.send(header + request)
        messages: list[Message] = []
        interrupted = False
        for flags, message in _received(connection, sequence, namespace):
            interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
            messages.append(message)
        if not interrupted:
            return tuple(messages)
    raise FailedPrecondition(
        Reason.NETWORK_NAMESPACE_CHANGING,
        f"Links, addresses or routes of {namespace} changed during each of {_ATTEMPTS} attempts"
        " to read them.",
        read=f"rtnetlink in {namespace}",
        advice="Try again after the links, addresses and routes have settled.",
    )


def is_of_kernel(sender: tuple[int, int]) -> bool:
    """Return whether a datagram is the kernel's, by the address that recvmsg(2) returns."""
    return sender[0] == _KERNEL[0]


def messages_of(block: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram."""
    offset = 0
    while offset + _HEADER.size <= len(block):
        length, kind, *_ = _HEADER.unpack_from(block, offset)
        yield Message(kind, block[offset : offset + length])
        offset += max(_HEADER.size, (length + 3) & ~3)


def _enter(namespace: int) -> None:
    """Move the calling thread into a network namespace (os.setns comes with Python 3.12)."""
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def _received(
    connection: socket.socket, sequence: int, namespace: str
) -> Iterator[tuple[int, Message]]:
    size = 0
    while True:
        block, _, cut, sender = connection.recvmsg(_RECEIVE_BYTES)
        size += len(block)
        if size > MAX_DUMP_BYTES:
            raise ResourceExhausted(
                Reason.NETWORK_NAMESPACE_TOO_LARGE,
                f"The dump of {namespace} has more than {MAX_DUMP_BYTES} bytes of links, addresses"
                " or routes.",
                read=f"rtnetlink in {namespace}",
            )
        if not is_of_kernel(sender):  # sent between the socket's bind(2) and its connect(2)
            continue
        if cut & socket.MSG_TRUNC:
            raise ValueError(f"a datagram of more than {_RECEIVE_BYTES} bytes")
        offset = 0
        while offset + _HEADER.size <= len(block):
            length, kind, flags, number, _ = _HEADER.unpack_from(block, offset)
            data = block[offset : offset + length]
            offset += max(_HEADER.size, (length + 3) & ~3)
            if number != sequence:
                continue  # the rest of a dump that was given up
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                code = _ERROR.unpack_from(data, _HEADER.size)[0]
                if code < 0:
                    raise OSError(-code, os.strerror(-code), "rtnetlink")
                if flags & _NLM_F_DUMP_INTR:
                    yield flags, Message(kind, b"")
                return
            yield flags, Message(kind, data)
        yield_cpu()
