"""The service csi.v1.Identity: the driver's name and version, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from netutil.csi.v1 import csi_pb2, csi_pb2_grpc


@dataclass(frozen=True, slots=True)
class IdentityService(csi_pb2_grpc.IdentityServicer):
    """Answers the kubelet, and `netutil-csi --check`."""

    name: str
    version: str

    def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginInfoResponse:
        """Return name and version."""
        return csi_pb2.GetPluginInfoResponse(name=self.name, vendor_version=self.version)

    def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Return no capability: there is no controller service."""
        return csi_pb2.GetPluginCapabilitiesResponse()

    def Probe(
        self, request: csi_pb2.ProbeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ProbeResponse:
        """Return an unset `ready`, which means ready."""
        return csi_pb2.ProbeResponse()
