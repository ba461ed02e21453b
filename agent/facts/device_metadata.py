"""Reads and holds the device metadata that drivers of ResourceClaims write on the node (KEP-5304).

Some versions of the library replace a file, others write it again in place. So a file counts if its
times did not change during the read, and if its last change was so long before the read that no
other change can have the same time: the kernel's clock of files ticks every 1 to 10 ms. What was
read so is held, and used for as long as device, inode, size and times of the file are the same.

Everything here blocks, and is for threads; several at once may use it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from itertools import islice

import msgspec
from cachetools import TTLCache
from netutil.agent.errors import AgentError, FailedPrecondition, Reason, Unavailable
from netutil.agent.facts.plugin_tree import (
    METADATA_DIRECTORY,
    METADATA_FILE,
    Place,
    PlaceError,
    PluginTree,
    Refused,
    Signature,
    claim_directory,
    not_read,
    open_tree,
    too_many,
)
from netutil.agent.parsers.claims import ClaimDevice
from netutil.agent.parsers.device_metadata import (
    MAX_BYTES,
    DeviceMetadata,
    DeviceMetadataMalformed,
    DeviceMetadataTooLarge,
    parse_device_metadata,
)
from netutil.agent.yield_cpu import in_pieces

MAX_FILES = 256
"""Of one look."""
MAX_LOOK_BYTES = 4 * 1024 * 1024
"""Of the files of one look."""
MAX_HELD_BYTES = 8 * 1024 * 1024
"""Memory of what is held, as estimated."""
MAX_HELD_FILES = 1024
_BYTES_PER_FILE = MAX_HELD_BYTES // MAX_HELD_FILES
_BYTES_PER_ERROR = 4096
_HELD_SECONDS = 60.0
_SETTLED_NANOSECONDS = 50_000_000
_PARTIAL_NANOSECONDS = 2_000_000_000
_PAUSE_SECONDS = 0.025
_MAX_TRIES = 8
_MAX_WAIT_SECONDS = 0.5
"""Of all files of one look together; a read that takes two seconds is given up."""
_LOOK_AT_DRIVER = "The driver writes the file; look at the file on the node, and at the driver."

WatchedClaims = tuple[str, tuple[tuple[str, str], ...]]
"""A namespace, and claims in it: each a name, and the one request that counts, "" for all."""
Outcome = DeviceMetadata | AgentError
"""What a file says, or why that is not known."""


@dataclass(frozen=True, slots=True)
class RequestFile:
    """The file of one driver and request; `request` is the name of its directory."""

    driver: str
    request: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file said. `is_settled`: a later change shows in the signature."""

    outcome: Outcome
    signature: Signature
    is_settled: bool


@dataclass(frozen=True, slots=True)
class _Held:
    signature: Signature
    outcome: Outcome
    cost_bytes: int


@dataclass(slots=True)
class _Look:
    """What is left to one look, over all of its claims."""

    files: int = MAX_FILES
    bytes: int = MAX_LOOK_BYTES
    until: float = 0.0


@dataclass(slots=True)
class MetadataStats:
    """What was read since the start."""

    reads: int = 0
    """Files that were read, each time."""
    failures: int = 0
    """Of these, those that could not be used."""


@dataclass(slots=True, eq=False)
class Clocks:
    """Seconds that never go back, the time of files in nanoseconds, and a pause."""

    monotonic: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = field(default=time.sleep)


class DeviceMetadataFiles:
    """The files of all drivers of the node. `plugins` is the kubelet's directory of plugins."""

    def __init__(self, plugins: str, clocks: Clocks | None = None) -> None:
        self.plugins = plugins
        self.stats = MetadataStats()
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._held: TTLCache[tuple[str, str, str], _Held] = TTLCache(
            MAX_HELD_BYTES,
            _HELD_SECONDS,
            timer=self._clocks.monotonic,
            getsizeof=lambda held: held.cost_bytes,
        )

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Return the memory of what is held, as estimated."""
        with self._lock:
            return int(self._held.currsize)

    def age(self) -> None:
        """Release what was read a minute ago; what is used still is read again."""
        with self._lock:
            self._held.expire()

    def read(
        self, namespace: str, claims: Sequence[tuple[str, str]]
    ) -> tuple[tuple[RequestFile, ...] | AgentError, ...]:
        """Return the files of each claim, by driver and request, or why they are not known.

        A claim is its name and the one request that is asked for, "" for all; a name that no object
        of the API has is an error of that claim. Raises `Unavailable` if the directory of plugins
        cannot be read, and `ResourceExhausted` for more than `MAX_PLUGINS` or `MAX_DRIVERS`.
        """
        look = _Look(until=self._clocks.monotonic() + _MAX_WAIT_SECONDS)
        found: list[tuple[RequestFile, ...] | AgentError] = []
        with ExitStack() as stack:
            tree = open_tree(self.plugins, stack)
            for claim, request in claims:
                try:
                    name = claim_directory(namespace, claim, request)
                    places = in_pieces(tree.places(name, request))
                    files = (self._file(one, look) for one in places)
                    found.append(tuple(one for one in files if one is not None))
                except AgentError as error:
                    found.append(error.with_traceback(None))
        return tuple(found)

    def signatures(self, wanted: Iterable[WatchedClaims]) -> dict[WatchedClaims, object]:
        """Return for each what differs as soon as `read` would return something else.

        Raises as `read`, but not for what is below the directory of plugins.
        """
        found: dict[WatchedClaims, object] = {}
        with ExitStack() as stack:
            tree = open_tree(self.plugins, stack)
            for one in wanted:
                if one not in found:
                    found[one] = tuple(islice(self._signatures(tree, one), MAX_FILES))
        return found

    def _signatures(self, tree: PluginTree, wanted: WatchedClaims) -> Iterator[object]:
        namespace, claims = wanted
        for claim, request in claims:
            try:
                name = claim_directory(namespace, claim, request)
            except FailedPrecondition:
                continue  # it has no files, whatever happens
            for one in tree.places(name, request):
                if isinstance(one, PlaceError):
                    yield one.driver, one.request
                    continue
                try:
                    yield one.key, one.signature()
                except OSError as error:
                    yield one.key, error.errno
                except Refused as error:
                    yield one.key, str(error)

    def drivers(self) -> tuple[str, ...]:
        """Return the names of the plugins that write device metadata. Raises as `read`."""
        with ExitStack() as stack:
            return tuple(driver for driver, _ in open_tree(self.plugins, stack).drivers)

    def _file(self, place: Place | PlaceError, look: _Look) -> RequestFile | None:
        """Return what a file says, None if there is none."""
        if isinstance(place, PlaceError):
            return RequestFile(place.driver, place.request, place.error)
        path = f"{self.plugins}/{place.driver}/{METADATA_DIRECTORY}/{place.claim}"
        path = f"{path}/{place.request}/{METADATA_FILE}"
        try:
            outcome = self._outcome(place, path, look)
        except FileNotFoundError:
            return None
        except (OSError, Refused) as error:
            outcome = not_read(error, path)
        except AgentError as error:
            outcome = error.with_traceback(None)
        return RequestFile(place.driver, place.request, outcome)

    def _outcome(self, place: Place, path: str, look: _Look) -> Outcome:
        """Return what is held of a file, or read it. Raises OSError, `Refused`, `AgentError`."""
        signature = place.signature()
        look.files -= 1
        look.bytes -= min(signature[2], MAX_BYTES)
        if look.files < 0:
            raise too_many("files of the claims of one container", MAX_FILES, path)
        if look.bytes < 0:
            raise too_many("bytes in the files of one container", MAX_LOOK_BYTES, path)
        with self._lock:
            held = self._held.get(place.key)
        if held is not None and held.signature == signature:
            return held.outcome
        self._count(reads=1)
        read = self._read(place, path, look)
        if isinstance(read.outcome, AgentError):
            self._count(failures=1)
        cost = max(_BYTES_PER_FILE, _memory_bytes(read.outcome))
        if read.is_settled and cost <= MAX_HELD_BYTES:
            with self._lock:
                self._held[place.key] = _Held(read.signature, read.outcome, cost)
        return read.outcome

    def _count(self, reads: int = 0, failures: int = 0) -> None:
        with self._lock:
            self.stats.reads += reads
            self.stats.failures += failures

    def _read(self, place: Place, path: str, look: _Look) -> _Read:
        """Return what a file says once any later change will show in its signature.

        A file that changes all the time is not answered: raises `Unavailable`. So is one that looks
        half written, until it has been so for two seconds: a driver that is kept waiting by the
        node may take that long between two writes. A file with a time in the future, after the
        node's clock was set back, never settles; it counts if two reads with a pause between them
        are equal.
        """
        before: tuple[bytes, Signature] | None = None
        for _ in range(_MAX_TRIES):
            found = place.read(MAX_BYTES)
            age = 0 if found is None else self._clocks.wall_ns() - found[1][4]
            if found is not None and (age >= _SETTLED_NANOSECONDS or (age < 0 and found == before)):
                outcome, is_partial = _parsed(found[0], place, path)
                if not is_partial or not 0 <= age < _PARTIAL_NANOSECONDS:
                    return _Read(outcome, found[1], age >= _SETTLED_NANOSECONDS)
            before = found
            if self._clocks.monotonic() >= look.until:
                break
            self._clocks.sleep(_PAUSE_SECONDS)
        self._count(failures=1)
        raise Unavailable(
            Reason.DEVICE_METADATA_CHANGING,
            f"{path} is being written.",
            read=path,
            advice="Ask again in a moment.",
        )


def _memory_bytes(value: object) -> int:
    """Return how much memory a value takes, with all that it holds, each as if it were its own."""
    if isinstance(value, AgentError):
        return _BYTES_PER_ERROR
    held: Iterable[object] = ()
    if isinstance(value, msgspec.Struct):
        held = (getattr(value, name) for name in value.__struct_fields__)
    elif isinstance(value, ClaimDevice):
        held = (getattr(value, one.name) for one in fields(value))
    elif isinstance(value, tuple):
        held = value
    return sys.getsizeof(value) + sum(_memory_bytes(one) for one in held if one is not None)


def _parsed(body: bytes, place: Place, path: str) -> tuple[Outcome, bool]:
    """Return what a file says, and whether it looks half written."""
    try:
        found = parse_device_metadata(body)
    except DeviceMetadataMalformed as error:
        malformed = FailedPrecondition(
            Reason.DEVICE_METADATA_MALFORMED,
            f"{path} cannot be used: {error}.",
            read=path,
            advice=_LOOK_AT_DRIVER,
        )
        return malformed, error.may_be_partial
    except DeviceMetadataTooLarge as error:
        return too_many(f"in {path}", str(error), path), False
    return _contradiction(found, place, path) or found, False


def _contradiction(found: DeviceMetadata, place: Place, path: str) -> AgentError | None:
    """Return the error of a file that is about something else than its path says."""
    pairs = [(f"{found.claim_namespace}_{found.claim_name}", place.claim)]
    for request in found.requests:
        # With a prioritized list: "request/subrequest".
        pairs.append((request.name.partition("/")[0], place.request))
        pairs += ((driver, place.driver) for driver in request.drivers)
    for inside, outside in pairs:
        if inside != outside:
            return FailedPrecondition(
                Reason.DEVICE_METADATA_CONTRADICTS,
                f"{path} is about {inside[:300]!r}, not about {outside!r}.",
                read=path,
                advice=_LOOK_AT_DRIVER,
            )
    return None
