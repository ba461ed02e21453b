"""Lists every pod of the node in one line each."""

from __future__ import annotations

from netutil.agent.admin.describe import by_name
from netutil.agent.admin.pod_summary import PodSummaries
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.messages.convert import timestamp
from netutil.agent.pods.directory import PodDirectory
from netutil.v1alpha import node_pb2 as api


class PodLister:
    """Lists the pods of a fresh pod list."""

    def __init__(
        self, pods: PodDirectory, callers: CallerResolver, summaries: PodSummaries
    ) -> None:
        self._pods = pods
        self._callers = callers
        self._summaries = summaries

    async def list(self) -> api.ListPodsResponse:
        """Return every pod by namespace and name. Raises `Unavailable` of the pod source."""
        pod_list = await self._pods.refresh()
        directories = await self._callers.directories.all_cpu()
        return api.ListPodsResponse(
            pods=[self._summaries.summarize(pod, directories) for pod in by_name(pod_list)],
            observed_at=timestamp(pod_list.observed_at),
        )
