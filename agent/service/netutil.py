"""The service on the public socket: each method identifies, gathers and answers."""

from __future__ import annotations

import grpc
from netutil.agent.door.table import Connection
from netutil.agent.errors import Inconsistent, Missing, Reason, Unidentified
from netutil.agent.facts.cpu import read_cpu
from netutil.agent.facts.environment import read_environment
from netutil.agent.facts.network import ensure_interface_name, of_interface, read_networks
from netutil.agent.parsers.environment import Environment
from netutil.agent.service import answers
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.calls import Answering, Context, wait_seconds
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc


class NetUtil(netutil_pb2_grpc.NetUtilServicer):
    """`v1alpha.NetUtil`, for the caller's own pod only."""

    def __init__(self, callers: Callers, answering: Answering) -> None:
        self._callers = callers
        self._answering = answering

    async def GetCPUInfo(self, request: api.CPURequest, context: Context) -> api.CPUResponse:
        """Return the CPUs of the process's container."""

        async def body(connection: Connection) -> api.CPUResponse:
            caller = await self._callers.identify(connection, wait_seconds(context))
            return await self._cpu(caller, request.pid)

        return await self._answering.answer("GetCPUInfo", context, body)

    async def GetEnv(self, request: api.EnvRequest, context: Context) -> api.EnvResponse:
        """Return the environment the process was started with."""

        async def body(connection: Connection) -> api.EnvResponse:
            caller = await self._callers.identify(connection, wait_seconds(context))
            found = await self._callers.read_environ(caller, request.pid, read_environment)
            return answers.environment(found, _variables(found, request.key))

        return await self._answering.answer("GetEnv", context, body)

    async def GetNetworkStatus(
        self, request: api.NetworkStatusRequest, context: Context
    ) -> api.NetworkStatusResponse:
        """Return the pod's networks."""
        interface = request.int

        async def body(connection: Connection) -> api.NetworkStatusResponse:
            if interface:
                ensure_interface_name(interface)
            caller = await self._callers.identify(connection, wait_seconds(context))
            await self._ensure_in_pod(caller, request.pid)
            match = caller.known
            networks = read_networks(
                match.pod.metadata.annotations or {}, match.pod.ips, pod=match.pod.full_name
            )
            return answers.network(of_interface(networks, interface), match)

        return await self._answering.answer("GetNetworkStatus", context, body)

    async def GetPod(self, request: api.PodRequest, context: Context) -> api.PodResponse:
        """Return the pod and the container of the process."""

        async def body(connection: Connection) -> api.PodResponse:
            seconds = wait_seconds(context)
            caller = await self._callers.identify(connection, seconds, need_container=True)
            if not request.pid:
                return answers.pod(caller.known, caller.cgroups.container_id or "")
            process, cgroups = await self._callers.process(caller, request.pid)
            process.close()
            match = await self._callers.match(cgroups, seconds)
            return answers.pod(match, cgroups.container_id or "")

        return await self._answering.answer("GetPod", context, body)

    async def GetResource(
        self, request: api.ResourceRequest, context: Context
    ) -> api.ResourceResponse:
        """Refuse: devices are not served yet."""
        del request
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "GetResource is not served yet.")

    async def _cpu(self, caller: Caller, pid: str) -> api.CPUResponse:
        """Answer for the caller's container even after the caller's end, if a child of it asks."""
        try:
            process, cgroups = await self._callers.process(caller, pid)
        except Unidentified:
            if pid:
                raise
            process, cgroups = None, caller.cgroups
        affinity = None
        try:
            directories = self._callers.cpu_directories(cgroups)
            if directories is None:
                raise Inconsistent(
                    Reason.CPUSET_NOT_FOUND,
                    "The container stands in no cpuset hierarchy that the agent can see.",
                    read="/proc/<pid>/cgroup",
                    advice="Mount the host's /sys into the agent and name it in --host-root.",
                )
            facts = read_cpu(directories)
            if process is not None and process.alive():
                affinity = process.status().cpus_allowed
                affinity = affinity if process.alive() else None
        except Unidentified:
            affinity = None
        finally:
            if process is not None:
                process.close()
        return answers.cpu(facts, affinity)

    async def _ensure_in_pod(self, caller: Caller, pid: str) -> None:
        if pid:
            process, _ = await self._callers.process(caller, pid)
            process.close()


def _variables(found: Environment, key: str) -> dict[str, str]:
    if not key:
        return found.variables
    if key not in found.variables:
        raise Missing(
            Reason.VARIABLE_NOT_SET,
            f"The process has no environment variable {key[:128]!r}.",
            read="/proc/<pid>/environ",
            advice="Variables that a process sets after its start are not shown there.",
        )
    return {key: found.variables[key]}
