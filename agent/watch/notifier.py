"""Notifies watch streams of changed facts.

Each fact has one source of change, shared by all streams: one task waits for changes of the pod
list, one polls the kubelet's allocations, one looks at the device metadata of claims, one waits for
changes of claims at the API server, and network namespaces and cgroups notify by themselves.
No source is polled for a single stream. The tasks run while there are streams.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.claim_devices import ClaimDevices
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.container_directories import WatchedDirectories
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.errors import AgentError, FailedPrecondition, QuotaExceeded, Reason, Unavailable
from netutil.agent.facts.cgroup_changes import CgroupChanges
from netutil.agent.facts.device_metadata import WatchedClaims
from netutil.agent.facts.network_state import Namespace
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 2.0
_AGAIN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Subscription:
    """One stream: its caller as of the last snapshot, and whether a fact has changed since."""

    caller: Caller | None = field(default=None, init=False)
    resources: object = field(default=None, init=False)
    claims: WatchedClaims | None = field(default=None, init=False)
    claim_files: object = field(default=None, init=False)
    claim_status: object = field(default=None, init=False)
    namespace: Namespace | None = field(default=None, init=False)
    cgroups: WatchedDirectories = field(default_factory=WatchedDirectories, init=False)
    ended: BaseException | None = field(default=None, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def notify(self) -> None:
        """Let the stream make a snapshot."""
        self._changed.set()

    def fail(self, why: BaseException) -> None:
        """End the stream with an error."""
        self.ended = self.ended or why
        self._changed.set()

    async def wait(self) -> None:
        """Return when a fact has changed. Raises the error that ends the stream."""
        await self._changed.wait()
        self.acknowledge()

    def acknowledge(self) -> None:
        """Take all changes up to now as seen. Raises as `wait`."""
        if self.ended is not None:
            raise self.ended
        self._changed.clear()


class ChangeNotifier:
    """Notifies the streams of the node. Used on one event loop."""

    def __init__(
        self,
        callers: CallerResolver,
        pods: PodDirectory,
        resources: ResourceDirectory,
        networks: LiveNetworks,
        containers: ContainerCache,
        refresh_seconds: float,
        claims: ClaimDevices | None = None,
    ) -> None:
        self._claims = claims
        self._callers = callers
        self._pods = pods
        self._resources = resources
        self._refresh_seconds = refresh_seconds
        self._subscriptions: set[Subscription] = set()
        self._networks = networks
        self._containers = containers
        self._cgroups = CgroupChanges(containers.read_open)
        self._notifying: asyncio.Task[None] | None = None
        self._stopped = False
        self.snapshots = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[Subscription]:
        """Add a stream, which `follow` then attaches to the sources of change."""
        if self._stopped:
            raise _restarting()
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.create_task(self._notify())
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._leave_namespace(subscription)
            self._leave_cgroups(subscription)
            if not self._subscriptions:
                await self._end_notifying()

    async def follow(self, subscription: Subscription, caller: Caller) -> None:
        """Take a caller's state as that of the next snapshot; notify of differences from now on."""
        subscription.caller = caller
        subscription.resources = self._peek(caller)
        await self._follow_claims(subscription, caller)
        if not subscription.cgroups.own:
            subscription.cgroups = self._callers.directories.watched(caller.cgroups)
            self._cgroups.subscribe(subscription.cgroups.own, subscription.notify)
            self._cgroups.subscribe_above(subscription.cgroups.above, subscription.notify)
        await self._follow_namespace(subscription, caller)

    def stop(self) -> None:
        """End all streams, also streams that begin later: the agent is stopping."""
        self._stopped = True
        for subscription in self._subscriptions:
            subscription.fail(_restarting())

    async def close(self) -> None:
        """End all streams and the tasks."""
        self.stop()
        await self._end_notifying()

    async def _end_notifying(self) -> None:
        notifying, self._notifying = self._notifying, None
        if notifying is not None:
            notifying.cancel()
            await asyncio.gather(notifying, return_exceptions=True)

    async def _notify(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._notify_of_pods())
                group.create_task(self._notify_of_resources())
                group.create_task(self._notify_of_claims())
                group.create_task(self._notify_of_status())
                group.create_task(self._sweep())
        except Exception as error:  # noqa: BLE001 - a bug, which ends every stream
            # Streams without notifications would show an old snapshot for ever.
            _LOG.exception("watch: the change notifier failed; all streams end")
            for subscription in tuple(self._subscriptions):
                subscription.fail(RuntimeError(f"the sources of change failed: {error}"))

    async def _notify_of_pods(self) -> None:
        generation = 0
        while not self._stopped:
            try:
                generation = await self._pods.changed(generation)
            except Unavailable:
                return  # the agent stops, which ends every stream
            for subscription in tuple(self._subscriptions):
                if subscription.caller is not None and self._differs(subscription.caller):
                    subscription.notify()

    async def _notify_of_resources(self) -> None:
        while True:
            await self._resources.refresh()
            for subscription in tuple(self._subscriptions):
                if subscription.caller is not None and subscription.resources != self._peek(
                    subscription.caller
                ):
                    subscription.notify()
            await asyncio.sleep(self._refresh_seconds)

    async def _notify_of_claims(self) -> None:
        """Look at the drivers' files of all streams every two seconds, each claim once."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            wanted = {one.claims for one in self._subscriptions if one.claims is not None}
            files = await self._claim_files(wanted) if wanted else {}
            for subscription in tuple(self._subscriptions):
                claims = subscription.claims
                if claims is None:
                    continue
                if claims in files and files[claims] != subscription.claim_files:
                    subscription.notify()
                # A stream that fails or recovers changes the errors, and no claim.
                self._notify_of_other_status(subscription)

    async def _notify_of_status(self) -> None:
        """Wait for changes of claims at the API server, where they are followed."""
        generation = 0
        while self._claims is not None and self._claims.is_followed:
            generation = await self._claims.changed(generation)
            for subscription in tuple(self._subscriptions):
                self._notify_of_other_status(subscription)

    def _notify_of_other_status(self, subscription: Subscription) -> None:
        if subscription.claims is None or self._claims is None:
            return
        if self._claims.status(subscription.claims) != subscription.claim_status:
            subscription.notify()

    async def _follow_claims(self, subscription: Subscription, caller: Caller) -> None:
        subscription.claims = self._claims.watched(caller.match) if self._claims else None
        if subscription.claims is not None and self._claims is not None:
            subscription.claim_status = self._claims.status(subscription.claims)
            files = await self._claim_files({subscription.claims})
            subscription.claim_files = files.get(subscription.claims)

    async def _claim_files(self, wanted: set[WatchedClaims]) -> Mapping[WatchedClaims, object]:
        """Return what is seen of the files of claims; nothing while it cannot be looked at."""
        if self._claims is None:
            return {}
        try:
            return await self._claims.signatures(wanted)
        except AgentError as error:
            # The snapshot has the same error, and the next look is due soon.
            _LOG.debug("watch: the device metadata of claims is not looked at: %s", error)
            return {}

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for subscription in self._subscriptions:
                if subscription.caller is not None:
                    self._containers.renew(subscription.caller.cgroups)
            self._cgroups.sweep()
            for subscription in tuple(self._subscriptions):
                # A pod that the list lacks is kept for some time: only the sweep sees its end.
                if subscription.caller is not None and self._is_forgotten(subscription.caller):
                    subscription.notify()

    def _differs(self, caller: Caller) -> bool:
        if self._pods.last is None:
            return False
        try:
            return _described(self._listed(caller)) != _described(caller.match)
        except FailedPrecondition:
            return True

    def _is_forgotten(self, caller: Caller) -> bool:
        cgroups = caller.cgroups
        known = self._pods.knows(cgroups.pod_uid, cgroups.container_id)
        return self._pods.last is not None and not known

    def _listed(self, caller: Caller) -> Match | None:
        if self._pods.last is None:
            return None
        found = self._pods.last.find(caller.cgroups.pod_uid, caller.cgroups.container_id)
        return found and found.if_only_container()

    def _peek(self, caller: Caller) -> object:
        if caller.match is None:
            return None
        metadata = caller.match.pod.metadata
        return self._resources.peek(metadata.namespace, metadata.name, caller.match.container_name)

    async def _follow_namespace(self, subscription: Subscription, caller: Caller) -> None:
        """Subscribe to the network namespace of the caller's process, unless it is the node's.

        A namespace that cannot be entered is an error of the snapshot's interfaces as well.
        """
        if _on_host_network(caller):
            self._leave_namespace(subscription)
            return
        pod_key, process = caller.peer.pod_key, caller.peer.process
        try:
            subscription.namespace = await self._networks.follow(
                pod_key, process, subscription.namespace, subscription.notify
            )
        except AgentError as error:
            self._leave_namespace(subscription)
            _LOG.info("watch: network namespace of pod %s: %s", pod_key, error)
            if isinstance(error, QuotaExceeded):  # a shortage, or many reads: it passes
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, subscription.notify)

    def _leave_cgroups(self, subscription: Subscription) -> None:
        self._cgroups.unsubscribe(
            (*subscription.cgroups.own, *subscription.cgroups.above), subscription.notify
        )

    def _leave_namespace(self, subscription: Subscription) -> None:
        if subscription.namespace is not None:
            self._networks.unfollow(subscription.namespace, subscription.notify)
            subscription.namespace = None


def _on_host_network(caller: Caller) -> bool:
    return caller.match is not None and caller.match.pod.spec.host_network


def _described(match: Match | None) -> object:
    """Return a match without the time at which it was read."""
    return match and (match.pod, match.container_name)


def _restarting() -> Unavailable:
    return Unavailable(
        Reason.AGENT_RESTARTING,
        "The agent is restarting.",
        advice="Watch again; a new agent takes over the same path.",
    )
