"""From /proc/<pid>/stat and status, in which the process itself chose the name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.process import (
    ProcessStatus,
    Stat,
    TaskStatus,
    TaskUse,
    ThreadCredentials,
    parse_credentials,
    parse_stat,
    parse_status,
    parse_task_status,
    parse_task_use,
)

# Linux 6.18: the fields before and after the name, up to field 52.
PID, REST = (
    "18085",
    "S 18083 18083 2482 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 1 0 471122 2998272 395"
    " 18446744073709551615 94289805455360 94289805479465 140721883144496 0 0 0 0 0 0 0 0 0 17 0 0"
    " 0 0 0 0 94289805495312 94289805496928 94290282381312 140721883146957 140721883146985"
    " 140721883146985 140721883148266 0\n",
)
EXPECTED = Stat(False, True, 471122, 140721883146985, 140721883148266)

HOSTILE_NAMES = [
    "cat",
    "",
    " ",
    ")",
    "(",
    "a) R 1 (b",
    ") R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0",
    "x) Z",
    "((((",
    "))))",
    "tmux: server",
    "(sd-pam)",
    "line\nbreak",
    "\n) R 1 1\n",
    "\t\r\v\f",
    "\u2028\u00a0\x85",
    "\ufffd\ufffd",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_moves_the_fields_of_stat(name: str) -> None:
    assert parse_stat(f"{PID} ({name}) {REST}") == EXPECTED


def test_a_name_that_is_not_utf_8_moves_nothing() -> None:
    raw = f"{PID} (".encode() + b"\xff) \xc3\x28" + f") {REST}".encode()
    assert parse_stat(raw.decode("utf-8", errors="replace")) == EXPECTED


def test_addresses_that_the_kernel_hides_are_none() -> None:
    fields = REST.split()
    fields[47:49] = ["0", "0"]  # a zombie, a kernel thread, a process of another user
    hidden = parse_stat(f"{PID} (cat) {' '.join(fields)}\n")
    assert (hidden.environment_start, hidden.environment_end) == (None, None)


def test_memory_without_code_holds_no_program() -> None:
    fields = REST.split()
    assert parse_stat(f"{PID} (cat) {' '.join(fields)}\n").has_program
    fields[23] = "0"  # at the end, and while execve(2) sets it up
    assert not parse_stat(f"{PID} (cat) {' '.join(fields)}\n").has_program


def test_addresses_that_an_old_kernel_does_not_write_are_none() -> None:
    before_3_5 = " ".join(REST.split()[:42])
    assert parse_stat(f"{PID} (cat) {before_3_5}\n") == Stat(False, True, 471122, None, None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{PID} cat {REST}", id="no parentheses"),
        pytest.param(f"{PID} (cat) ", id="cut after the name"),
        pytest.param(f"{PID} (cat) {' '.join(REST.split()[:19])}\n", id="cut before start time"),
        pytest.param(f"{PID} (cat) {REST.replace('471122', 'soon')}", id="start time is no number"),
        pytest.param(f"{PID} (cat) {REST.replace('140721883146985', '0x7f')}", id="address"),
        pytest.param(f"{PID} (cat) {REST.replace('471122', '9' * 5000)}", id="5000 digits"),
    ],
)
def test_a_stat_line_that_is_not_of_the_kernel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"stat line|int"):
        parse_stat(text)


@given(st.text(), st.sampled_from("RSDZTtXIP"), st.integers(0, 2**64 - 1), st.integers(1, 2**64))
def test_any_name_and_numbers_come_back(name: str, state: str, start: int, address: int) -> None:
    fields = REST.split()
    fields[0], fields[19], fields[47], fields[48] = state, str(start), str(address), str(address)
    found = parse_stat(f"1 ({name}) {' '.join(fields)}\n")
    assert found == Stat(state in "ZX", True, start, address, address)


def test_a_thread_that_exits_and_is_no_zombie_yet_has_exited() -> None:
    fields = REST.split()
    fields[6] = str(int(fields[6]) | 0x4)  # PF_EXITING
    assert parse_stat(f"{PID} (cat) {' '.join(fields)}\n").has_exited


@given(st.one_of(st.text(), st.text().map(lambda text: f"1 (x) {text}")))
def test_any_text_for_stat_gives_a_value_or_valueerror(text: str) -> None:
    try:
        parse_stat(text)
    except ValueError as error:
        assert str(error)


STATUS = (
    "Name:\tnginx\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4711\nPid:\t4711\nPPid:\t4650\n"
    "TracerPid:\t0\nUid:\t101\t102\t103\t104\nGid:\t201\t202\t203\t204\nFDSize:\t64\n"
    "Groups:\t101 999 \nNStgid:\t4711\t12\t7\nNSpid:\t4713\t14\t9\nVmSize:\t    3060 kB\n"
    "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n"
    "Seccomp:\t2\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,8,10-11\nMems_allowed_list:\t0\n"
)
EXPECTED_STATUS = ProcessStatus(
    namespace_pids=(4711, 12, 7),
    uids=(101, 102, 103, 104),
    gids=(201, 202, 203, 204),
    effective_capabilities=0xA80425FB,
    cpus_allowed="0-3,8,10-11",
    has_ended=False,
)
EXPECTED_CREDENTIALS = ThreadCredentials((101, 102, 103, 201, 202, 203), 0xA80425FB, False)


@pytest.mark.parametrize(
    "name",
    [
        "nginx",
        "",
        "a:b",
        "Uid:\t0\t0\t0\t0",
        "x\\nUid:\t0\t0\t0\t0",  # the kernel writes a newline as backslash and n
        "x\rUid:\t0\t0\t0\t0",
        "x\vUid:\t0\t0\t0\t0",
        "x\fNStgid:\t1",
        "x\x1cUid:\t0\t0\t0\t0",
        "x\x85CapEff:\tffffffffffffffff",
        "x\u2028Cpus_allowed_list:\t0-1023",
        "x\u2029Gid:\t0\t0\t0\t0",
        "\ufffd",
    ],
)
def test_no_name_adds_a_line_to_status(name: str) -> None:
    text = STATUS.replace("\tnginx\n", f"\t{name}\n")
    assert parse_status(text) == EXPECTED_STATUS
    assert parse_credentials(text.encode()) == EXPECTED_CREDENTIALS


@pytest.mark.parametrize("field", ["State", "NStgid", "Uid", "Gid", "CapEff", "Cpus_allowed_list"])
def test_a_status_field_that_is_missing_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"no {field} line"):
        parse_status(STATUS.replace(f"\n{field}:", "\nOther:"))


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("NStgid:\t4711\t12\t7", "NStgid:"),
        ("NStgid:\t4711\t12\t7", "NStgid:\tseven"),
        ("Uid:\t101\t102\t103\t104", "Uid:\t101\t102\t103"),
        ("Uid:\t101\t102\t103\t104", "Uid:\t101\t102\t103\t104\t105"),
        ("Gid:\t201\t202\t203\t204", "Gid:\troot"),
        ("CapEff:\t00000000a80425fb", "CapEff:\t"),
        ("CapEff:\t00000000a80425fb", "CapEff:\tall"),
    ],
)
def test_a_status_field_that_is_not_of_the_kernel_is_refused(line: str, broken: str) -> None:
    assert line in STATUS
    with pytest.raises(ValueError, match=r"NStgid|int|values"):
        parse_status(STATUS.replace(line, broken))


@pytest.mark.parametrize("field", ["State", "Uid", "Gid", "CapEff"])
def test_credentials_with_a_field_that_is_missing_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="CapEff"):
        parse_credentials(STATUS.replace(f"\n{field}:", "\nOther:").encode())


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("Uid:\t101\t102\t103\t104", "Uid:\t101\t102\t103"),
        ("Uid:\t101\t102\t103\t104", "Uid:\t101\t102\t103\t104\t105"),
        ("Gid:\t201\t202\t203\t204", "Gid:\troot"),
        ("Gid:\t201\t202\t203\t204", "Gid:\t-1\t202\t203\t204"),
        ("CapEff:\t00000000a80425fb", "CapEff:\t"),
        ("CapEff:\t00000000a80425fb", "CapEff:\ta80425fb"),
    ],
)
def test_credentials_that_are_not_of_the_kernel_are_refused(line: str, broken: str) -> None:
    assert line in STATUS
    with pytest.raises(ValueError, match="CapEff"):
        parse_credentials(STATUS.replace(line, broken).encode())


ids = st.tuples(*[st.integers(0, 2**32 - 1)] * 4)


@given(
    st.text(st.characters(exclude_characters="\n")),
    st.lists(st.integers(1, 4194304), min_size=1, max_size=32),
    ids,
    ids,
    st.integers(0, 2**64 - 1),
    st.sampled_from(
        ["R (running)", "S (sleeping)", "D (disk sleep)", "Z (zombie)", "X (dead)", "I (idle)"]
    ),
)
def test_a_status_comes_back_whatever_its_name(
    name: str,
    pids: list[int],
    uids: tuple[int, int, int, int],
    gids: tuple[int, int, int, int],
    capabilities: int,
    state: str,
) -> None:
    text = (
        f"Name:\t{name}\nState:\t{state}\n"
        f"Uid:\t{'	'.join(map(str, uids))}\nGid:\t{'	'.join(map(str, gids))}\n"
        f"NStgid:\t{'	'.join(map(str, pids))}\nCapEff:\t{capabilities:016x}\n"
        "Cpus_allowed_list:\t0-1\n"
    )
    expected = ProcessStatus(tuple(pids), uids, gids, capabilities, "0-1", state[0] in "ZX")
    assert parse_status(text) == expected
    credentials = parse_credentials(text.encode())
    assert credentials.ids == (*uids[:3], *gids[:3])
    assert credentials.effective_ids == (uids[1], gids[1])
    assert credentials.effective_capabilities == capabilities
    assert credentials.has_ended == expected.has_ended


@given(st.one_of(st.text(), st.text().map(lambda text: STATUS.replace("12", text))))
def test_any_text_for_status_gives_a_value_or_valueerror(text: str) -> None:
    try:
        assert parse_status(text).namespace_pids
    except ValueError as error:
        assert str(error)


@given(st.one_of(st.binary(), st.binary().map(lambda raw: STATUS.encode().replace(b"12", raw))))
def test_any_bytes_for_credentials_give_a_value_or_valueerror(raw: bytes) -> None:
    try:
        assert len(parse_credentials(raw).ids) == 6
    except ValueError as error:
        assert str(error)


_RENAME_ITSELF = """
import sys
with open("/proc/self/comm", "wb") as name:
    name.write(bytes.fromhex(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def process_named(name: bytes) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _RENAME_ITSELF, name.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid


@pytest.mark.parametrize(
    "name",
    [
        b") R 1 (",
        b"\n) Z 0 0\n",
        b"\xff\xfe)\x80",
        b"x\nUid:\t0",
        b"x\rNStgid:\t1",
        b"\xe2\x80\xa8U:",
    ],
)
def test_a_real_process_with_a_hostile_name_is_read_as_any_other(name: bytes) -> None:
    with process_named(name) as pid:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
        status = Path(f"/proc/{pid}/status").read_bytes()
        expected_start = raw.rpartition(b") ")[2].split()[19]
    assert name in raw
    stat = parse_stat(raw.decode("utf-8", errors="replace"))
    assert not stat.has_exited
    assert stat.start_ticks == int(expected_start)
    found = parse_status(status.decode("utf-8", errors="replace"))
    assert found.namespace_pids[0] == pid
    assert found.uids == (os.getuid(),) * 4
    credentials = parse_credentials(status)
    assert credentials.ids == (os.getuid(),) * 3 + (os.getgid(),) * 3


TASK_STATUS = (
    "Umask:\t0022\nState:\tS (sleeping)\nTgid:\t41\nNgid:\t0\nPid:\t42\nPPid:\t1\n"
    "NStgid:\t41\t1\nNSpid:\t42\t2\nThreads:\t7\nCpus_allowed_list:\t0-3\n"
)
NAMES = st.text(st.characters(exclude_characters="\n\\", codec="utf-8"))


@given(NAMES | st.sampled_from(["Threads:\t99", "Tgid:\t1", "NSpid:\t9", "Name:\tx", ""]))
def test_a_name_is_no_field_of_a_task(name: str) -> None:
    assert parse_task_status(f"Name:\t{name}\n{TASK_STATUS}") == TaskStatus(name, 2, 7)


@given(st.text())
def test_any_status_of_a_task_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_task_status(text)
    except ValueError:
        return
    assert "Threads:" in text.partition("\n")[2] and found.name in text


@pytest.mark.parametrize("line", ["Name", "NSpid", "Threads"])
def test_a_task_without_a_field_is_refused(line: str) -> None:
    whole = f"Name:\tx\n{TASK_STATUS}"
    lines = [one for one in whole.split("\n") if not one.startswith(f"{line}:")]
    with pytest.raises(ValueError, match=r"status|Name"):
        parse_task_status("\n".join(lines))
    emptied = [f"{line}:" if one.startswith(f"{line}:") else one for one in whole.split("\n")]
    with pytest.raises(ValueError, match=r"."):
        parse_task_status("\n".join(emptied))


@given(NAMES)
def test_a_name_is_no_use_of_a_task(name: str) -> None:
    fields = REST.split()
    fields[11], fields[12], fields[36] = "120", "3", "17"
    text = f"{PID} ({name}) {' '.join(fields)}\n"
    assert parse_task_use(text) == TaskUse("S", 123, 471122, 17)


@given(st.text())
def test_any_use_of_a_task_is_parsed_or_refused(text: str) -> None:
    try:
        parse_task_use(text)
    except ValueError:
        return
    assert ")" in text
