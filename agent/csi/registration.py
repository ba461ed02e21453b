"""The service pluginregistration.Registration: makes the driver known to the kubelet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from netutil.csi.v1 import pluginregistration_pb2 as messages
from netutil.csi.v1 import pluginregistration_pb2_grpc as services

_LOG = logging.getLogger(__name__)

PLUGIN_TYPE = "CSIPlugin"
_SUPPORTED_VERSIONS = ("1.0.0",)
_MAX_LOGGED = 1000


@dataclass(frozen=True, slots=True)
class RegistrationService(services.RegistrationServicer):
    """Answers the kubelet. `endpoint` is the driver's own socket, by its path on the host.

    `end` stops the driver with exit code 1, after the answer.
    """

    name: str
    endpoint: str
    end: Callable[[], None]

    def GetInfo(
        self, request: messages.InfoRequest, context: grpc.ServicerContext
    ) -> messages.PluginInfo:
        """Return what the kubelet needs to call the driver."""
        return messages.PluginInfo(
            type=PLUGIN_TYPE,
            name=self.name,
            endpoint=self.endpoint,
            supported_versions=_SUPPORTED_VERSIONS,
        )

    def NotifyRegistrationStatus(
        self, request: messages.RegistrationStatus, context: grpc.ServicerContext
    ) -> messages.RegistrationStatusResponse:
        """Log the kubelet's decision. Without a registration the driver ends, to be restarted."""
        if request.plugin_registered:
            _LOG.info("csi: the kubelet registered %s", self.name)
        else:
            _LOG.error(
                "csi: the kubelet did not register %s: %s", self.name, request.error[:_MAX_LOGGED]
            )
            self.end()
        return messages.RegistrationStatusResponse()
