"""Texts and messages of the kernel in which a workload chooses names: /proc, cpusets, rtnetlink."""

from __future__ import annotations

import json
import os
import socket
import struct
from unittest.mock import patch

from msgspec import structs
from netutil.agent.errors import AgentError
from netutil.agent.facts import links as links_module
from netutil.agent.facts import rtnetlink
from netutil.agent.facts.links import Link
from netutil.agent.parsers import cgroup
from netutil.agent.parsers.addresses import format_hardware_address
from netutil.agent.parsers.cpulist import MAX_NUMBER, format_cpu_list, parse_cpu_list
from netutil.agent.parsers.environment import Environment, parse_environment
from netutil.agent.parsers.pod_cgroups import (
    joined_parents,
    normalise_uid,
    pod_places,
)
from netutil.agent.parsers.process import (
    ProcessStatus,
    Stat,
    TaskStatus,
    TaskUse,
    parse_stat,
    parse_status,
    parse_task_status,
    parse_task_use,
)
from netutil.client.cpulist import parse_cpulist

from tests.fuzz.target import Target
from tests.support.repository import RECORDINGS
from tests.unit.parsers import test_cgroup, test_mountinfo, test_process

RECORDED = [json.loads(path.read_text()) for path in sorted(RECORDINGS.glob("*.json"))]
_FOREIGN_POD_UID = "99999999-8888-4777-9666-555555555555"
_FOREIGN_CONTAINER_ID = "be57" * 16
_PATH_MAX = 4096
_QOS = ("burstable", "besteffort")
_ABOVE_PODS = {
    f"{root}/kubepods{qos}"
    for root in ("", "/kubelet", "/kubelet.slice")
    for qos in ("", "/burstable", "/besteffort")
}
_SERVICES = {path.rpartition("/")[2] for path in joined_parents(pod_places())}


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")  # as the readers of /proc do


def _identify(data: bytes) -> cgroup.CgroupIdentity:
    return cgroup.identify(_text(data))


def _reference(text: str) -> tuple[str, str] | None:
    """The pod and container by other means than the parser's; None where it refuses, or no UID."""
    pods, containers = set(), set()
    for line in text.split("\n"):
        pod = container = ""
        segments = line.split(":", 2)[-1].split("/")
        for index, segment in enumerate(segments):
            before, joined, after = segment.partition(":cri-containerd:")
            above = "/".join(segments[:index])
            slices = segments[1:index]
            if slices and slices[-1] in _SERVICES:
                slices = slices[:-1]
            by_runtime = all(one.endswith(".slice") for one in slices)
            if not pod and joined and _is_id(after) and by_runtime:
                pod = _pod_uid(before) if _is_pods_slice(before) else ""
                container = after if pod else ""
            elif not pod and _holds_pod(above, segment):
                pod = _pod_uid(segment)
            elif pod and not container:
                container = _container_id(segment)
        pods |= {pod} - {""}
        containers |= {container} - {""} if pod else set()
    return (pods.pop(), containers.pop()) if len(pods) == len(containers) == 1 else None


def _is_pods_slice(name: str) -> bool:
    above = name.removesuffix(".slice").rpartition("-pod")[0]
    for qos in _QOS:
        above = above.removesuffix(f"-{qos}") if above.count(f"-{qos}") == 1 else above
    return name.endswith(".slice") and (above == "kubepods" or above[1:].endswith("-kubepods"))


def _holds_pod(above: str, segment: str) -> bool:
    """Return whether a kubelet makes a pod's directory of that name there."""
    if above in _ABOVE_PODS and segment.startswith("pod") and not segment.endswith(".slice"):
        return True
    for start, top in (("/", "kubepods"), ("/kubelet.slice/", "kubelet-kubepods")):
        names = (f"{start}{top}.slice", *(f"{start}{top}.slice/{top}-{q}.slice" for q in _QOS))
        befores = (f"{top}-pod", *(f"{top}-{qos}-pod" for qos in _QOS))
        if above in names and segment.startswith(befores):
            return _is_pods_slice(segment)
    return False


def _pod_uid(segment: str) -> str:
    uid = segment
    if segment.endswith(".slice") and ":" not in segment and "-pod" in segment:
        uid = "pod" + segment.removesuffix(".slice").rpartition("-pod")[2]
    if not uid.startswith("pod"):
        return ""
    uid = uid[3:]
    marks = {character for character in uid if character in "-_"}
    plain = uid.replace("-", "").replace("_", "")
    shape = "".join(marks).join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))
    right = len(marks) <= 1 and len(plain) == 32 and uid == shape and _is_hex(plain)
    return plain if right else ""


def _container_id(segment: str) -> str:
    for prefix in ("cri-containerd-", "crio-", "docker-"):
        if segment.startswith(prefix) and segment.endswith(".scope"):
            segment = segment[len(prefix) : -len(".scope")]
            break
    else:
        segment = segment.removeprefix("crio-")
    return segment if _is_id(segment) else ""


def _is_id(text: str) -> bool:
    return len(text) == 64 and _is_hex(text)


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


def _identity_holds(data: bytes, found: cgroup.CgroupIdentity) -> None:
    text = _text(data).removesuffix("\n")
    if found.pod_uid is None:
        assert _reference(text) is None
        return
    named = (found.pod_uid, found.container_id)
    assert named == _reference(text)
    deeper = f"/pod{_FOREIGN_POD_UID}/{_FOREIGN_CONTAINER_ID}"
    below = "\n".join(
        line + deeper
        if any(line.endswith(p.line.path) and p.container_id for p in found.placements)
        else line
        for line in text.split("\n")
    )
    without = f"99:misc:/user.slice/{_FOREIGN_CONTAINER_ID}"
    for changed in (below, f"{without}\n{text}", f"{text}\n{without}\n"):
        again = cgroup.identify(changed)
        assert (again.pod_uid, again.container_id) == named, changed
    if found.pod_uid == normalise_uid(_FOREIGN_POD_UID):
        return
    try:
        other = cgroup.identify(f"{text}\n98:other:/kubepods{deeper}")
    except AgentError:
        return
    raise AssertionError(f"a second pod was taken for {other.pod_uid}")


def _environment_holds(data: bytes, found: Environment) -> None:
    entries = [entry for entry in data.split(b"\0") if entry]
    wanted: dict[str, str] = {}
    for entry in reversed(entries):  # the first of a name counts, so it is written last
        if b"=" in entry:
            name, _, value = entry.partition(b"=")
            wanted[name.decode(errors="replace")] = value.decode(errors="replace")
    assert found.variables == wanted
    assert found.skipped_entries == sum(b"=" not in entry for entry in entries)
    assert found.replaced_entries <= len(entries) - found.skipped_entries
    if not found.replaced_entries:
        block = b"\0".join(f"{k}={v}".encode() for k, v in found.variables.items())
        assert parse_environment(block).variables == found.variables


def _cpus(data: bytes) -> tuple[int, ...]:
    return parse_cpu_list(_text(data), read="cpuset.cpus")


def _cpus_hold(data: bytes, found: tuple[int, ...]) -> None:
    del data
    assert found == tuple(sorted(set(found)))
    assert not found or 0 <= found[0] <= found[-1] <= MAX_NUMBER
    shortest = format_cpu_list(found)
    assert parse_cpu_list(shortest, read="") == found
    assert parse_cpulist(shortest) == frozenset(found)


def _mounts(data: bytes) -> tuple[cgroup.CgroupMount, ...]:
    return cgroup.parse_cgroup_mounts(_text(data))


def _mounts_hold(data: bytes, found: tuple[cgroup.CgroupMount, ...]) -> None:
    lines = [line for line in _text(data).split("\n") if " - cgroup" in line]
    assert len(found) <= len(lines)
    other = "41 30 0:40 / /\u2028- cgroup2 x rw - tmpfs cgroup2 rw"
    assert cgroup.parse_cgroup_mounts(f"{other}\n{_text(data)}\n{other}") == found
    assert all(mount.version in (1, 2) for mount in found)


def _stat(data: bytes) -> Stat:
    return parse_stat(_text(data))


def _stat_holds(data: bytes, found: Stat) -> None:
    rest = _text(data).rpartition(")")[2]
    for name in (
        "",
        ") R 1",
        "a\n)",
        ") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22",
    ):
        assert parse_stat(f"4711 ({name}){rest}") == found


def _status(data: bytes) -> ProcessStatus:
    return parse_status(_text(data))


def _status_holds(data: bytes, found: ProcessStatus) -> None:
    for name in ("x", "NStgid:\t1", "\x0bUid:\t0\t0\t0\t0", "\u2028Gid:\t0\t0\t0\t0"):
        assert parse_status(f"Name:\t{name}\n{_text(data)}") == found


def _task_status(data: bytes) -> TaskStatus:
    return parse_task_status(f"Name:\tx\n{_text(data)}")


def _task_status_holds(data: bytes, found: TaskStatus) -> None:
    for name in ("", "Threads:\t99", "\x0bThreads:\t1", "\u2028NSpid:\t1"):
        other = parse_task_status(f"Name:\t{name}\n{_text(data)}")
        assert other == structs.replace(found, name=name)


def _task_use(data: bytes) -> TaskUse:
    return parse_task_use(_text(data))


def _task_use_holds(data: bytes, found: TaskUse) -> None:
    rest = _text(data).rpartition(")")[2]
    for name in ("", ") R 1", "a\n)"):
        assert parse_task_use(f"4711 ({name}){rest}") == found


def _hardware(data: bytes) -> str:
    return format_hardware_address(int.from_bytes(data[:2], "little"), data[2:])


def _hardware_holds(data: bytes, found: str) -> None:
    if len(data) - 2 not in (4, 16):
        assert bytes.fromhex(found.replace(":", "")) == data[2:]


class _Kernel:
    """Answers each request with datagrams that were made up, as a netlink socket would."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._blocks: list[bytes] = []

    def __enter__(self) -> _Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, request: bytes) -> None:
        sequence = request[8:12]
        done = struct.pack("=IHHIIi", 20, 3, 2, int.from_bytes(sequence, "little"), 0, 0)
        self._blocks = [self._data, done]

    def recvmsg(self, _: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self._blocks:
            raise TimeoutError("timed out")
        return self._blocks.pop(0), [], 0, (0, 0)


def _links(data: bytes) -> tuple[Link, ...]:
    directory = os.open("/proc/self", os.O_RDONLY)
    try:
        with patch.object(links_module, "open_rtnetlink", lambda _: _Kernel(data)):
            return links_module.read_links(directory)
    finally:
        os.close(directory)


def _link_dumps() -> tuple[bytes, ...]:
    """Return this machine's own links, addresses and routes."""
    dumps = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as connection:
        connection.settimeout(5)
        for kind, request in ((18, bytes(16)), (22, bytes(8)), (26, bytes(12))):
            block = b"".join(m.data for m in rtnetlink.dump(connection, kind, request)[:4])
            dumps.append(block)
    return (*dumps, b"".join(dumps))


def _news(data: bytes) -> list[bool]:
    return [links_module.is_default_route(message) for message in rtnetlink.messages_of(data)]


def targets() -> tuple[Target, ...]:
    cgroups = tuple(one["text"].encode() for recorded in RECORDED for one in recorded["cgroups"])
    cgroups += tuple(case[0].encode() for case in test_cgroup.REAL_WORLD.values())
    marks: tuple[bytes, ...] = (
        b"pod",
        b".slice",
        b".scope",
        b"crio-",
        b"docker-",
        b"cri-containerd-",
        b"0::/",
    )
    marks += (b":cri-containerd:", b"/../../", test_cgroup.UID.encode(), b"4c1f" * 16, b"\n", b"_")
    dumps = _link_dumps()
    stat = f"{test_process.PID} (cat) {test_process.REST}"
    return (
        # A path's own length bounds the paths of the containers on it.
        Target(
            "cgroup",
            _identify,
            cgroups,
            holds=_identity_holds,
            words=marks,
            most_times=_PATH_MAX // 64,
            largest_bytes=_PATH_MAX,
        ),
        Target(
            "environ",
            parse_environment,
            (b"A=1\0B=a=b\0C=\xff\0D\0A=2\0", b"PATH=/bin\0"),
            expected=(),
            holds=_environment_holds,
            words=(b"=", b"\0", b"\xc3\xbc", b"\xff"),
        ),
        Target(
            "cpulist",
            _cpus,
            (b"0-3,8\n", b"0-15:2/4", b"7", b"", b"0-8191"),
            holds=_cpus_hold,
            words=(b",", b"-", b":", b"/", b"8191"),
            most_more=16384,
        ),
        Target(
            "mountinfo",
            _mounts,
            tuple(case[0].encode() for case in test_mountinfo.REAL_WORLD.values()),
            expected=(),
            holds=_mounts_hold,
            words=(b" - ", b"cgroup2", b"\\040", b" "),
        ),
        Target(
            "stat",
            _stat,
            (stat.encode(),),
            expected=(ValueError,),
            holds=_stat_holds,
            words=(b") ", b" (", b"-1", b"\n"),
        ),
        Target(
            "status",
            _status,
            (test_process.STATUS.encode(),),
            expected=(ValueError,),
            holds=_status_holds,
            words=(b"NStgid:", b"Uid:\t", b"\t", b"CapEff:"),
        ),
        Target(
            "task-status",
            _task_status,
            (test_process.TASK_STATUS.encode(),),
            expected=(ValueError,),
            holds=_task_status_holds,
            words=(b"NSpid:", b"\t", b"Threads:"),
        ),
        Target(
            "task-use",
            _task_use,
            (stat.encode(),),
            expected=(ValueError,),
            holds=_task_use_holds,
            words=(b") ", b" (", b"-1", b"\n"),
        ),
        Target(
            "hardware-address",
            _hardware,
            (b"\x01\x00\x02\x00\x5e\x10\x20\x30", b"\x00\x03abcd"),
            expected=(),
            holds=_hardware_holds,
        ),
        Target("rtnetlink", _links, dumps, most_times=64, most_more=65536),
        Target("rtnetlink-news", _news, dumps, expected=()),
    )
