"""Cache of parsed environments.

A held environment is an answer only if the bytes that it was parsed from are what
/proc/<pid>/environ shows at that moment: the block is read for each answer, and compared. So an
exec, a process that rewrites or moves its environment, and a reused PID are all seen, and no
answer is older than a read. What is saved is decoding, and encoding the answer.

The block is read, and not a sign that it is the same memory, because every sign costs as much.
Reads of /proc/<pid>/stat, pagemap and environ take a reference to the memory (`get_task_mm` and
`mmget_not_zero`). The last holder that drops it frees the memory of a process that has executed
another program meanwhile, and waits for its asynchronous I/O (`__mmput` in kernel/fork.c,
`exit_aio` in fs/aio.c); opening one of them waits for an exec (`exec_update_lock` in fs/exec.c).
A workload can make both last as long as it likes, so none of them is read on the event loop; and
on another thread, reading a block of some kilobytes takes hardly longer than reading a sign.

The file is opened for each read. A descriptor that is kept shows the memory that the process has
left, for as long as another process has it too (vfork(2), CLONE_VM).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

from netutil.agent.facts.environment import read_block
from netutil.agent.parsers.environment import Environment, parse_environment
from netutil.agent.parsers.plugin_devices import device_variables

MAX_BLOCK_BYTES = 64 * 1024
"""A larger block is parsed for each answer, as are more variables than `MAX_VARIABLES`."""
MAX_VARIABLES = 1024
MAX_BYTES_PER_POD = 1024 * 1024
MAX_BYTES = 8 * 1024 * 1024
IDLE_SECONDS = 60.0
"""An environment that is not asked for is released after this time, or half of it more."""
_SWEEP_SECONDS = IDLE_SECONDS / 2
_ENTRY_BYTES = 1024
_ANSWER_BYTES_PER_VARIABLE = 160
_ANSWER_BYTES_PER_BLOCK_BYTE = 6  # a byte that is not UTF-8 becomes three; Python keeps UTF-8 too
_DEVICE_BYTES_PER_CHARACTER = 24  # "{}," of JSON becomes a dictionary


@dataclass(slots=True, eq=False, weakref_slot=True)
class HeldEnvironment:
    """An environment beside the block that it was parsed from.

    `device_variables` are the variables that name devices, `size_bytes` is how much memory all of
    it takes at most, 0 if it is too large to be held. `answer` is what the service made of the
    whole environment, None before that. `named` are the devices that it names together with the
    environment of its container's start. Both are kept and released with the environment.
    """

    block: bytes
    environment: Environment
    device_variables: dict[str, str]
    size_bytes: int
    answer: Any = None
    named: Any = None
    _named_with: ReferenceType[HeldEnvironment] | None = None

    def set_named(self, start: HeldEnvironment | None, named: Any) -> None:
        """Keep the devices that both name; `start` is None where it is the same process."""
        self.named = named
        self._named_with = ref(start) if start is not None else None

    def is_named_with(self, start: HeldEnvironment | None) -> bool:
        """Return whether `named` is of these two environments."""
        if self.named is None or (start is None) != (self._named_with is None):
            return False
        return self._named_with is None or self._named_with() is start

    @property
    def device_characters(self) -> int:
        """Return how long the variables are that name devices."""
        return _device_characters(self.device_variables)

    @property
    def device_bytes(self) -> int:
        """Return the largest memory of the devices that its variables name."""
        return _DEVICE_BYTES_PER_CHARACTER * self.device_characters

    @property
    def may_be_held(self) -> bool:
        """Return whether it is small enough to be held."""
        return _may_be_held(self.block, self.environment)


def read_held(thread: int, held: HeldEnvironment | None) -> HeldEnvironment:
    """Return the environment of a process as it is now: `held` if its block is the same.

    `thread` and errors are those of `facts.environment.read_block`, and of `held_environment`.
    Blocks: not for the event loop.
    """
    block = read_block(thread)
    if held is not None and held.block == block:
        return held
    return held_environment(block)


def held_environment(block: bytes) -> HeldEnvironment:
    """Return the environment that a block holds. May take long: not for the event loop.

    Raises `ResourceExhausted` as `parse_environment`.
    """
    environment = parse_environment(block)
    devices = device_variables(environment.variables)
    size_bytes = 0
    if _may_be_held(block, environment):
        size_bytes = _size_bytes(block, environment.variables, _device_characters(devices))
    return HeldEnvironment(block, environment, devices, size_bytes)


def _may_be_held(block: bytes, environment: Environment) -> bool:
    return len(block) <= MAX_BLOCK_BYTES and len(environment.variables) <= MAX_VARIABLES


def _device_characters(devices: dict[str, str]) -> int:
    return sum(map(len, devices.values())) + len(devices)


def _size_bytes(block: bytes, variables: dict[str, str], device_characters: int) -> int:
    texts = sum(map(sys.getsizeof, variables)) + sum(map(sys.getsizeof, variables.values()))
    answer = (
        _ANSWER_BYTES_PER_BLOCK_BYTE * len(block)
        + _ANSWER_BYTES_PER_VARIABLE * len(variables)
        + _DEVICE_BYTES_PER_CHARACTER * device_characters
    )
    return _ENTRY_BYTES + sys.getsizeof(block) + sys.getsizeof(variables) + texts + answer


@dataclass(slots=True, eq=False)
class _Entry:
    """`size_bytes` is of `held`, and of what it names together with another environment."""

    held: HeldEnvironment
    used_at: float
    size_bytes: int


@dataclass(slots=True, eq=False)
class _PodEntries:
    """What is held for one pod. The entry that was used last is the last."""

    entries: OrderedDict[Hashable, _Entry] = field(default_factory=OrderedDict)
    size_bytes: int = 0


class EnvironmentCache:
    """Holds environments by pod, within a limit of bytes per pod and in all.

    Past a limit the environment that was used longest ago is released: of that pod, or of the pod
    that asked longest ago. `size_bytes` and `len()` are what is held now. Used on one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pods: OrderedDict[str, _PodEntries] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None
        self.size_bytes = 0

    def __len__(self) -> int:
        return sum(len(pod.entries) for pod in self._pods.values())

    def get(self, pod_key: str, key: Hashable) -> HeldEnvironment | None:
        """Return what is held under a key, for `read_held` to compare; None if nothing is."""
        pod = self._pods.get(pod_key)
        entry = pod.entries.get(key) if pod is not None else None
        return entry.held if entry is not None else None

    def put(self, pod_key: str, key: Hashable, held: HeldEnvironment) -> None:
        """Hold an environment that was just read, unless it is too large."""
        pod = self._pods.get(pod_key)
        if pod is not None:
            self._pods.move_to_end(pod_key)
            entry = pod.entries.get(key)
            if entry is not None and entry.held is held:
                entry.used_at = self._clock()
                pod.entries.move_to_end(key)
                return
            self._release(pod_key, pod, key)
        if not held.may_be_held:
            return
        pod = self._pods.setdefault(pod_key, _PodEntries())
        pod.entries[key] = entry = _Entry(held, self._clock(), 0)
        self._grow(pod_key, pod, entry, held.size_bytes)
        if self._sweep is None:
            self._plan_sweep()

    def keep_named(
        self,
        pod_key: str,
        key: Hashable,
        held: HeldEnvironment,
        start: HeldEnvironment | None,
        named: Any,
    ) -> None:
        """Keep the devices that an environment names together with its container's start.

        Nothing is kept of one that is not held. `start` is None where it is the same process.
        """
        pod = self._pods.get(pod_key)
        entry = pod.entries.get(key) if pod is not None else None
        if pod is None or entry is None or entry.held is not held:
            return
        held.set_named(start, named)
        size_bytes = held.size_bytes + (start.device_bytes if start is not None else 0)
        self._grow(pod_key, pod, entry, size_bytes - entry.size_bytes)

    def _grow(self, pod_key: str, pod: _PodEntries, entry: _Entry, size_bytes: int) -> None:
        """Let an entry take so much more, and release others past a limit."""
        entry.size_bytes += size_bytes
        pod.size_bytes += size_bytes
        self.size_bytes += size_bytes
        while pod.size_bytes > MAX_BYTES_PER_POD:
            self._release(pod_key, pod, next(iter(pod.entries)))
        while self.size_bytes > MAX_BYTES:
            oldest_key, oldest = next(iter(self._pods.items()))
            self._release(oldest_key, oldest, next(iter(oldest.entries)))

    def release_unused(self) -> None:
        """Release what was not used for `IDLE_SECONDS`."""
        before = self._clock() - IDLE_SECONDS
        for pod_key, pod in tuple(self._pods.items()):
            for key, entry in tuple(pod.entries.items()):
                if entry.used_at > before:
                    break
                self._release(pod_key, pod, key)

    def _release(self, pod_key: str, pod: _PodEntries, key: Hashable) -> None:
        entry = pod.entries.pop(key, None)
        if entry is not None:
            pod.size_bytes -= entry.size_bytes
            self.size_bytes -= entry.size_bytes
        if not pod.entries:
            self._pods.pop(pod_key, None)

    def _plan_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        self.release_unused()
        if self._pods:
            self._plan_sweep()
