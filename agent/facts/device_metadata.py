"""Reads and holds the device metadata that drivers of ResourceClaims write on the node (KEP-5304).

A driver has one file for each claim and request, of mode 0644 below directories that only root can
make (k8s.io/dynamic-resource-allocation/kubeletplugin, `metadataFilePath`):

    <kubelet root>/plugins/<driver>/dra-device-metadata/<namespace>_<claim>/<request>/metadata.json

The path is the same in all versions of that library; only the place inside containers moved. A path
is made of names that were checked against the API's rules, opened one by one from the directory of
plugins on; a link, or another file system that is mounted there, is never entered.

Some versions of the library replace a file, others write it again in place. So a file counts if its
times did not change during the read, and if its last change was so long before the read that no
other change can have the same time: the kernel's clock of files ticks every 1 to 10 ms. What was
read so is held, and used for as long as device, inode, size and times of the file are the same.

Everything here blocks, and is for threads; several at once may use it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice

from cachetools import TTLCache
from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    Reason,
    ResourceExhausted,
    Unavailable,
    resource_exhausted,
)
from netutil.agent.parsers.device_metadata import (
    MAX_BYTES,
    DeviceMetadata,
    DeviceMetadataMalformed,
    DeviceMetadataTooLarge,
    parse_device_metadata,
)

METADATA_DIRECTORY = "dra-device-metadata"
METADATA_FILE = "metadata.json"
MAX_PLUGINS = 256
"""Entries of the directory of plugins that are looked at."""
MAX_DRIVERS = 64
"""Plugins that write device metadata: the directory of each is open during a look."""
MAX_REQUESTS = 64
"""Of one claim and driver. A claim has at most 32 (resource.k8s.io, DeviceRequestsMaxSize)."""
MAX_FILES = 256
"""Of one look."""
MAX_LOOK_BYTES = 4 * 1024 * 1024
"""Of the files of one look."""
MAX_HELD_BYTES = 8 * 1024 * 1024
"""Memory of what is held, as estimated."""
MAX_HELD_FILES = 1024
_BYTES_PER_FILE = MAX_HELD_BYTES // MAX_HELD_FILES
_TIMES_LARGER = 4
"""What is parsed takes so many times the bytes of its file (measured: 2 to 4)."""
_HELD_SECONDS = 60.0
_SETTLED_NANOSECONDS = 50_000_000
_PARTIAL_NANOSECONDS = 2_000_000_000
_PAUSE_SECONDS = 0.025
_MAX_TRIES = 8
_MAX_WAIT_SECONDS = 0.5
"""Of all files of one look together; a read that takes two seconds is given up."""
_ABSENT = (errno.ENOENT, errno.ENAMETOOLONG)
_LINK_OR_FILE = (errno.ELOOP, errno.ENOTDIR)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO is opened, and then found to be none.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_MAX_DRIVER = 63
"""Characters of a driver's name; case does not count in it (resource.k8s.io, Device.driver)."""

_LOOK_AT_DRIVER = "The driver writes the file; look at the file on the node, and at the driver."

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and inode."""
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
    size_bytes: int
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


@dataclass(frozen=True, slots=True)
class _Place:
    """A file's directory, open, and the names that lead to the file."""

    directory: int
    driver: str
    claim: str
    request: str
    device: int = -1

    @property
    def key(self) -> tuple[str, str, str]:
        return self.driver, self.claim, self.request


@dataclass(frozen=True, slots=True)
class _Tree:
    """The device of the tree, and each driver's open directory of device metadata."""

    device: int
    drivers: tuple[tuple[str, int | AgentError], ...]


@dataclass(slots=True)
class MetadataStats:
    """What was read since the start."""

    reads: int = 0
    """Files that were read, each time."""
    failures: int = 0
    """Of these, those that could not be used."""


class _Refused(Exception):
    """An entry of the tree that is not entered; the text says what it is."""


@dataclass(slots=True, eq=False)
class Clocks:
    """Seconds that never go back, the time of files in nanoseconds, and a pause."""

    monotonic: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = field(default=time.sleep)


def plugins_directory(kubelet_root: str) -> str:
    """Return the directory of plugins below the kubelet's directory (pkg/kubelet/config)."""
    return f"{kubelet_root.rstrip('/')}/plugins"


def is_label(name: str) -> bool:
    """Return whether a name is a DNS label (RFC 1123), as those of namespaces and requests are."""
    return _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Return whether a name is a DNS subdomain (RFC 1123), as those of claims are."""
    return _SUBDOMAIN.fullmatch(name) is not None


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
            tree = self._open_tree(stack)
            for claim, request in claims:
                try:
                    name = _directory_of(namespace, claim, request)
                    files = (self._file(one, look) for one in self._places(tree, name, request))
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
            tree = self._open_tree(stack)
            for one in wanted:
                if one not in found:
                    found[one] = tuple(islice(self._signatures(tree, one), MAX_FILES))
        return found

    def _signatures(self, tree: _Tree, wanted: WatchedClaims) -> Iterator[object]:
        namespace, claims = wanted
        for claim, request in claims:
            try:
                name = _directory_of(namespace, claim, request)
            except FailedPrecondition:
                continue  # it has no files, whatever happens
            for one in self._places(tree, name, request):
                if isinstance(one, RequestFile):
                    yield one.driver, one.request
                    continue
                try:
                    yield one.key, _signature_at(one)
                except OSError as error:
                    yield one.key, error.errno
                except _Refused as error:
                    yield one.key, str(error)

    def drivers(self) -> tuple[str, ...]:
        """Return the names of the plugins that write device metadata. Raises as `read`."""
        with ExitStack() as stack:
            return tuple(driver for driver, _ in self._open_tree(stack).drivers)

    def _open_tree(self, stack: ExitStack) -> _Tree:
        """Return the drivers' directories of device metadata, open for as long as `stack`.

        A plugin that is a link, or that is on another file system, is ignored.
        """
        try:
            root = os.open(self.plugins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            device, names = os.fstat(root).st_dev, _names(root, MAX_PLUGINS)
        except OSError as error:
            raise resource_exhausted(error, self.plugins) or Unavailable(
                Reason.FILE_NOT_READABLE,
                f"{self.plugins} could not be read: {error.strerror or error}.",
                read=self.plugins,
                advice="Mount the kubelet's directory of plugins into the agent, read-only, as the"
                " manifests do; --kubelet-root names the directory above.",
            ) from None
        if names is None:
            raise _too_many(f"plugins in {self.plugins}", MAX_PLUGINS, self.plugins)
        drivers: list[tuple[str, int | AgentError]] = []
        for driver in sorted(names):
            if len(driver) > _MAX_DRIVER or not is_subdomain(driver.lower()):
                continue
            found = self._open_driver(stack, root, device, driver)
            if found is not None:
                drivers.append((driver, found))
            if len(drivers) > MAX_DRIVERS:
                raise _too_many(f"drivers in {self.plugins}", MAX_DRIVERS, self.plugins)
        return _Tree(device, tuple(drivers))

    def _open_driver(
        self, stack: ExitStack, root: int, device: int, driver: str
    ) -> int | AgentError | None:
        """Return a plugin's directory of device metadata, None if it has none."""
        path = f"{self.plugins}/{driver}"
        with ExitStack() as inner:
            try:
                plugin = _open_below(inner, root, device, driver)
            except _Refused:
                return None
            except OSError as error:
                return _not_read(error, path)
            if plugin is None:
                return None
            try:
                return _open_below(stack, plugin, device, METADATA_DIRECTORY)
            except (OSError, _Refused) as error:
                return _not_read(error, f"{path}/{METADATA_DIRECTORY}")

    def _places(self, tree: _Tree, claim: str, request: str) -> Iterator[_Place | RequestFile]:
        """Yield the open directory of each file of a claim, or the error in place of files."""
        for driver, directory in tree.drivers:
            if isinstance(directory, AgentError):
                yield RequestFile(driver, request, directory)
                continue
            path = f"{self.plugins}/{driver}/{METADATA_DIRECTORY}/{claim}"
            with ExitStack() as stack:
                try:
                    held = _open_below(stack, directory, tree.device, claim)
                    if held is None:
                        continue
                    names = [request] if request else _names(held, MAX_REQUESTS)
                except (OSError, _Refused) as error:
                    yield RequestFile(driver, request, _not_read(error, path))
                    continue
                if names is None:
                    why = _too_many(f"requests in {path}", MAX_REQUESTS, path)
                    yield RequestFile(driver, request, why)
                    continue
                for name in sorted(filter(is_label, names)):
                    yield from self._place(tree, held, _Place(-1, driver, claim, name), path)

    def _place(
        self, tree: _Tree, directory: int, place: _Place, path: str
    ) -> Iterator[_Place | RequestFile]:
        """Yield a place with its directory open, its error, or nothing if it is not there."""
        with ExitStack() as stack:
            try:
                found = _open_below(stack, directory, tree.device, place.request)
            except (OSError, _Refused) as error:
                why = _not_read(error, f"{path}/{place.request}")
                yield RequestFile(place.driver, place.request, why)
                return
            if found is not None:
                yield replace(place, directory=found, device=tree.device)

    def _file(self, place: _Place | RequestFile, look: _Look) -> RequestFile | None:
        """Return what a file says, None if there is none."""
        if isinstance(place, RequestFile):
            return place
        path = f"{self.plugins}/{place.driver}/{METADATA_DIRECTORY}/{place.claim}"
        path = f"{path}/{place.request}/{METADATA_FILE}"
        try:
            outcome = self._outcome(place, path, look)
        except FileNotFoundError:
            return None
        except (OSError, _Refused) as error:
            outcome = _not_read(error, path)
        except AgentError as error:
            outcome = error.with_traceback(None)
        return RequestFile(place.driver, place.request, outcome)

    def _outcome(self, place: _Place, path: str, look: _Look) -> Outcome:
        """Return what is held of a file, or read it. Raises OSError, `_Refused`, `AgentError`."""
        signature = _signature_at(place)
        look.files -= 1
        look.bytes -= min(signature[2], MAX_BYTES)
        if look.files < 0:
            raise _too_many("files of the claims of one container", MAX_FILES, path)
        if look.bytes < 0:
            raise _too_many("bytes in the files of one container", MAX_LOOK_BYTES, path)
        with self._lock:
            held = self._held.get(place.key)
        if held is not None and held.signature == signature:
            return held.outcome
        self._count(reads=1)
        read = self._read(place, path, look)
        if isinstance(read.outcome, AgentError):
            self._count(failures=1)
        if read.is_settled:
            cost = max(_BYTES_PER_FILE, _TIMES_LARGER * read.size_bytes)
            with self._lock:
                self._held[place.key] = _Held(read.signature, read.outcome, cost)
        return read.outcome

    def _count(self, reads: int = 0, failures: int = 0) -> None:
        with self._lock:
            self.stats.reads += reads
            self.stats.failures += failures

    def _read(self, place: _Place, path: str, look: _Look) -> _Read:
        """Return what a file says once any later change will show in its signature.

        A file that changes all the time is not answered: raises `Unavailable`. So is one that looks
        half written, until it has been so for two seconds: a driver that is kept waiting by the
        node may take that long between two writes. A file with a time in the future, after the
        node's clock was set back, never settles; it counts if two reads with a pause between them
        are equal.
        """
        before: tuple[bytes, Signature] | None = None
        for _ in range(_MAX_TRIES):
            found = _read_whole(place)
            age = 0 if found is None else self._clocks.wall_ns() - found[1][4]
            if found is not None and (age >= _SETTLED_NANOSECONDS or (age < 0 and found == before)):
                outcome, is_partial = _parsed(found[0], place, path)
                if not is_partial or not 0 <= age < _PARTIAL_NANOSECONDS:
                    return _Read(outcome, found[1], len(found[0]), age >= _SETTLED_NANOSECONDS)
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


def _directory_of(namespace: str, claim: str, request: str) -> str:
    """Return the name of a claim's directory. Raises `FailedPrecondition` for no names of the API.

    Neither part has a "_", a "/" or a dot at its beginning, so the name leads to no other place.
    """
    if is_label(namespace) and is_subdomain(claim) and (not request or is_label(request)):
        return f"{namespace}_{claim}"
    raise FailedPrecondition(
        Reason.RESOURCE_CLAIMS_MALFORMED,
        f"{f'{namespace}/{claim}'!r:.300} with request {request!r:.80} names no ResourceClaim.",
        read="the pod list",
        advice="Look at the pod in the pod source; Kubernetes takes no such name.",
    )


def _names(directory: int, most: int) -> list[str] | None:
    """Return the names of directories in a directory, None if it has more than `most` entries."""
    found: list[str] = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number == most:
                return None
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return found


def _open_below(stack: ExitStack, directory: int, device: int, name: str) -> int | None:
    """Return a directory in an open one, open for as long as `stack`; None if it is not there.

    Raises OSError, and `_Refused` for a link, for what is no directory and for another mount.
    """
    try:
        found = os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        if error.errno in _LINK_OR_FILE:
            raise _Refused("a link, or no directory") from None
        raise
    stack.callback(os.close, found)
    if os.fstat(found).st_dev != device:
        raise _Refused("on another file system")
    return found


def _signature_at(place: _Place) -> Signature:
    return _signature(os.stat(METADATA_FILE, dir_fd=place.directory, follow_symlinks=False), place)


def _signature(found: os.stat_result, place: _Place) -> Signature:
    """Return the signature of a file. Raises `_Refused` for what is no file of the tree."""
    if stat.S_ISLNK(found.st_mode):
        raise _Refused("a link")
    if not stat.S_ISREG(found.st_mode):
        raise _Refused("no regular file")
    if found.st_dev != place.device:
        raise _Refused("on another file system")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_whole(place: _Place) -> tuple[bytes, Signature] | None:
    """Return a file's bytes, one more than may be at most, and its signature.

    None if it changed meanwhile. Raises OSError and `_Refused`.
    """
    try:
        descriptor = os.open(METADATA_FILE, _FILE, dir_fd=place.directory)
    except OSError as error:
        if error.errno in _LINK_OR_FILE:
            raise _Refused("a link") from None
        raise
    try:
        before = _signature(os.fstat(descriptor), place)
        parts, left = [], MAX_BYTES + 1
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        after = _signature(os.fstat(descriptor), place)
    finally:
        os.close(descriptor)
    return (b"".join(parts), after) if before == after else None


def _parsed(body: bytes, place: _Place, path: str) -> tuple[Outcome, bool]:
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
        return _too_many(f"in {path}", str(error), path), False
    return _contradiction(found, place, path) or found, False


def _contradiction(found: DeviceMetadata, place: _Place, path: str) -> AgentError | None:
    """Return the error of a file that is about something else than its path says."""
    said = {f"{found.claim_namespace}_{found.claim_name}": place.claim}
    for request in found.requests:
        # With a prioritized list: "request/subrequest".
        said[request.name.partition("/")[0]] = place.request
        said |= {device.driver: place.driver for device in request.devices}
    for inside, outside in said.items():
        if inside != outside:
            return FailedPrecondition(
                Reason.DEVICE_METADATA_CONTRADICTS,
                f"{path} is about {inside[:300]!r}, not about {outside!r}.",
                read=path,
                advice=_LOOK_AT_DRIVER,
            )
    return None


def _not_read(error: OSError | _Refused, path: str) -> AgentError:
    if isinstance(error, _Refused):
        return FailedPrecondition(
            Reason.DEVICE_METADATA_MALFORMED,
            f"{path} is {error}, so the agent does not enter it.",
            read=path,
            advice="Drivers make directories and files there; look which program made the entry.",
        )
    return resource_exhausted(error, path) or Unavailable(
        Reason.FILE_NOT_READABLE,
        f"{path} could not be read: {error.strerror or error}.",
        read=path,
        advice="On the node, look at what the agent's container may read there.",
    )


def _too_many(what: str, most: int | str, path: str) -> ResourceExhausted:
    limit = f"there are more than {most} {what}" if isinstance(most, int) else f"{most} {what}"
    return ResourceExhausted(
        Reason.TOO_MANY_CLAIM_DEVICES,
        f"The devices of a claim are not read: {limit}.",
        read=path,
        advice="The limits of the agent are in docs/architecture.md; split the claim.",
    )
