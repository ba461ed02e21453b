"""Opens the files of device metadata in the kubelet's directory of plugins, and nothing else there.

A driver has one file for each claim and request, of mode 0644 below directories that only root can
make (k8s.io/dynamic-resource-allocation/kubeletplugin, `metadataFilePath`):

    <kubelet root>/plugins/<driver>/dra-device-metadata/<namespace>_<claim>/<request>/metadata.json

The path is the same in all versions of that library; only the place inside containers moved. A path
is made of names that were checked against the API's rules, opened one by one from the directory of
plugins on. A link, or another file system that is mounted there, is never entered.

Everything here blocks, and is for threads.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    Reason,
    ResourceExhausted,
    Unavailable,
    resource_exhausted,
)

METADATA_DIRECTORY = "dra-device-metadata"
METADATA_FILE = "metadata.json"
MAX_PLUGINS = 256
"""Entries of the directory of plugins that are looked at."""
MAX_DRIVERS = 64
"""Plugins that write device metadata: the directory of each is open during a look."""
MAX_REQUESTS = 64
"""Of one claim and driver. A claim has at most 32 (resource.k8s.io, DeviceRequestsMaxSize)."""
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

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and inode."""


class Refused(Exception):
    """An entry of the tree that is not entered; the text says what it is."""


@dataclass(frozen=True, slots=True)
class PlaceError:
    """Why the files of a driver are not known; `request` is "" for all of a claim's requests."""

    driver: str
    request: str
    error: AgentError


@dataclass(frozen=True, slots=True)
class Place:
    """A file's directory, open, and the names that lead to the file."""

    directory: int
    driver: str
    claim: str
    request: str
    device: int = -1

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the names that lead to the file."""
        return self.driver, self.claim, self.request

    def signature(self) -> Signature:
        """Return what changes with the file. Raises OSError and `Refused`."""
        return self._signature(os.stat(METADATA_FILE, dir_fd=self.directory, follow_symlinks=False))

    def read(self, most_bytes: int) -> tuple[bytes, Signature] | None:
        """Return a file's bytes, at most one more than `most_bytes`, and its signature.

        None if it changed meanwhile. Raises OSError and `Refused`.
        """
        try:
            descriptor = os.open(METADATA_FILE, _FILE, dir_fd=self.directory)
        except OSError as error:
            if error.errno in _LINK_OR_FILE:
                raise Refused("a link") from None
            raise
        try:
            before = self._signature(os.fstat(descriptor))
            parts, left = [], most_bytes + 1
            while left and (part := os.read(descriptor, left)):
                parts.append(part)
                left -= len(part)
            after = self._signature(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return (b"".join(parts), after) if before == after else None

    def _signature(self, found: os.stat_result) -> Signature:
        if stat.S_ISLNK(found.st_mode):
            raise Refused("a link")
        if not stat.S_ISREG(found.st_mode):
            raise Refused("no regular file")
        if found.st_dev != self.device:
            raise Refused("on another file system")
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True, slots=True)
class PluginTree:
    """The device of the tree, and each driver's open directory of device metadata."""

    plugins: str
    device: int
    drivers: tuple[tuple[str, int | AgentError], ...]

    def places(self, claim: str, request: str) -> Iterator[Place | PlaceError]:
        """Yield the open directory of each file of a claim, or the error in place of files.

        `claim` is as `claim_directory` returns it. A directory is open until the next is asked for.
        """
        for driver, directory in self.drivers:
            if isinstance(directory, AgentError):
                yield PlaceError(driver, request, directory)
                continue
            path = f"{self.plugins}/{driver}/{METADATA_DIRECTORY}/{claim}"
            with ExitStack() as stack:
                try:
                    held = _open_below(stack, directory, self.device, claim)
                    if held is None:
                        continue
                    names = [request] if request else _names(held, MAX_REQUESTS)
                except (OSError, Refused) as error:
                    yield PlaceError(driver, request, not_read(error, path))
                    continue
                if names is None:
                    why = too_many(f"requests in {path}", MAX_REQUESTS, path)
                    yield PlaceError(driver, request, why)
                    continue
                for name in sorted(filter(is_label, names)):
                    yield from self._place(held, Place(-1, driver, claim, name), path)

    def _place(self, directory: int, place: Place, path: str) -> Iterator[Place | PlaceError]:
        """Yield a place with its directory open, its error, or nothing if it is not there."""
        with ExitStack() as stack:
            try:
                found = _open_below(stack, directory, self.device, place.request)
            except (OSError, Refused) as error:
                why = not_read(error, f"{path}/{place.request}")
                yield PlaceError(place.driver, place.request, why)
                return
            if found is not None:
                yield replace(place, directory=found, device=self.device)


def plugins_directory(kubelet_root: str) -> str:
    """Return the directory of plugins below the kubelet's directory (pkg/kubelet/config)."""
    return f"{kubelet_root.rstrip('/')}/plugins"


def is_label(name: str) -> bool:
    """Return whether a name is a DNS label (RFC 1123), as those of namespaces and requests are."""
    return _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Return whether a name is a DNS subdomain (RFC 1123), as those of claims are."""
    return _SUBDOMAIN.fullmatch(name) is not None


def claim_directory(namespace: str, claim: str, request: str) -> str:
    """Return the name of a claim's directory.

    Neither part has a "_", a "/" or a dot at its beginning, so the name leads to no other place.
    Raises `FailedPrecondition` for a name that no object of the API has.
    """
    if is_label(namespace) and is_subdomain(claim) and (not request or is_label(request)):
        return f"{namespace}_{claim}"
    raise FailedPrecondition(
        Reason.RESOURCE_CLAIMS_MALFORMED,
        f"{f'{namespace}/{claim}'!r:.300} with request {request!r:.80} names no ResourceClaim.",
        read="the pod list",
        advice="Look at the pod in the pod source; Kubernetes takes no such name.",
    )


def open_tree(plugins: str, stack: ExitStack) -> PluginTree:
    """Return the drivers' directories of device metadata, open for as long as `stack`.

    A plugin that is a link, or that is on another file system, is ignored. Raises `Unavailable`
    if the directory of plugins cannot be read, and `ResourceExhausted` for more than
    `MAX_PLUGINS` or `MAX_DRIVERS`.
    """
    try:
        root = os.open(plugins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        device, names = os.fstat(root).st_dev, _names(root, MAX_PLUGINS)
    except OSError as error:
        raise resource_exhausted(error, plugins) or Unavailable(
            Reason.FILE_NOT_READABLE,
            f"{plugins} could not be read: {error.strerror or error}.",
            read=plugins,
            advice="Mount the kubelet's directory of plugins into the agent, read-only, as the"
            " manifests do; --kubelet-root names the directory above.",
        ) from None
    if names is None:
        raise too_many(f"plugins in {plugins}", MAX_PLUGINS, plugins)
    drivers: list[tuple[str, int | AgentError]] = []
    for driver in sorted(names):
        if len(driver) > _MAX_DRIVER or not is_subdomain(driver.lower()):
            continue
        found = _open_driver(stack, root, device, f"{plugins}/{driver}")
        if found is not None:
            drivers.append((driver, found))
        if len(drivers) > MAX_DRIVERS:
            raise too_many(f"drivers in {plugins}", MAX_DRIVERS, plugins)
    return PluginTree(plugins, device, tuple(drivers))


def _open_driver(stack: ExitStack, root: int, device: int, path: str) -> int | AgentError | None:
    """Return a plugin's directory of device metadata, None if it has none."""
    with ExitStack() as inner:
        try:
            plugin = _open_below(inner, root, device, os.path.basename(path))
        except Refused:
            return None
        except OSError as error:
            return not_read(error, path)
        if plugin is None:
            return None
        try:
            return _open_below(stack, plugin, device, METADATA_DIRECTORY)
        except (OSError, Refused) as error:
            return not_read(error, f"{path}/{METADATA_DIRECTORY}")


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

    Raises OSError, and `Refused` for a link, for what is no directory and for another mount.
    """
    try:
        found = os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        if error.errno in _LINK_OR_FILE:
            raise Refused("a link, or no directory") from None
        raise
    stack.callback(os.close, found)
    if os.fstat(found).st_dev != device:
        raise Refused("on another file system")
    return found


def not_read(error: OSError | Refused, path: str) -> AgentError:
    """Return the error of what is there and is not read."""
    if isinstance(error, Refused):
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


def too_many(what: str, most: int | str, path: str) -> ResourceExhausted:
    """Return the error of more than a limit: `most` as a number, or in words ("more than 3")."""
    limit = f"there are more than {most} {what}" if isinstance(most, int) else f"{most} {what}"
    return ResourceExhausted(
        Reason.TOO_MANY_CLAIM_DEVICES,
        f"The devices of a claim are not read: {limit}.",
        read=path,
        advice="The limits of the agent are in docs/architecture.md; split the claim.",
    )
