"""One mounted cgroup hierarchy of the host: directories of paths, and whose they are."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from netutil.agent.parsers.pod_cgroups import (
    PodPlaces,
    locate,
    pod_places,
)
from netutil.agent.shared_text import shared

UNIFIED = ""
"""The name of cgroup v2's hierarchy, which has no controllers in /proc/<pid>/cgroup."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy of the host.

    `root` is the cgroup that is mounted. `namespace` is the path, below the
    mount, of the cgroup namespace that paths in /proc/<pid>/cgroup are
    relative to: "" where the agent shares the host's. `places` are the locations of pods' cgroups.
    """

    version: int
    directory: str
    root: str = "/"
    namespace: str = ""
    places: PodPlaces = field(default_factory=pod_places, repr=False)

    def absolute(self, path: str) -> str | None:
        """Return a path of /proc/<pid>/cgroup from the hierarchy's root, as far as the agent sees.

        None if the path leads above that root.
        """
        segments: list[str] = []
        for segment in f"{self.namespace}/{path}".split("/"):
            if segment == "..":
                if not segments:
                    return None
                segments.pop()
            elif segment and segment != ".":
                segments.append(segment)
        return "/" + "/".join(segments)

    def resolve(self, path: str) -> str | None:
        """Return the directory of an absolute path, None if it lies outside of what is mounted.

        The directory is kept in several places for each container: as one string.
        """
        if self.root == "/":
            return shared(os.path.normpath(f"{self.directory}/{path}"))
        if path != self.root and not path.startswith(f"{self.root}/"):
            return None
        return shared(os.path.normpath(f"{self.directory}/{path.removeprefix(self.root)}"))

    def container_at(self, directory: str) -> str | None:
        """Return the ID of the container of which a directory is the own cgroup, None if of none.

        Only of a container whose path has a pod UID.
        """
        path = self._path_of(directory)
        found = locate(path, self.places)
        return found.container_id if found.pod_uid and found.container_path == path else None

    def pod_at(self, directory: str) -> str | None:
        """Return the normalised UID of the pod that a directory's path names, None for no pod."""
        return locate(self._path_of(directory), self.places).pod_uid

    def _path_of(self, directory: str) -> str:
        below = directory.removeprefix(self.directory)
        return f"{'' if self.root == '/' else self.root}{below}"
