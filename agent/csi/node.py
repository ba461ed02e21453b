"""The service csi.v1.Node: mount and unmount a volume, say the node's ID.

Methods that are missing here answer UNIMPLEMENTED. No capability is announced, so the kubelet
neither stages volumes nor asks for their statistics.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from netutil.agent.csi.answering import answering
from netutil.agent.csi.requests import parse_place, parse_publish
from netutil.agent.csi.volumes import Volumes, ensure_no_link
from netutil.csi.v1 import csi_pb2, csi_pb2_grpc

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeService(csi_pb2_grpc.NodeServicer):
    """Answers the kubelet. `end` stops the driver with exit code 1."""

    node_id: str
    pods: str
    volumes: Volumes
    end: Callable[[], None]

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Mount the source at the target path, read-only."""
        with answering("NodePublishVolume", context, self.end):
            target = parse_place(request, self.pods)
            ensure_no_link(target)
            publication = parse_publish(request, target)
            what = "mounted" if self.volumes.publish(target) else "is mounted already"
            _LOG.info(
                "csi: pod %s (%s) volume %s: %s",
                publication.pod,
                target.pod_uid,
                target.volume,
                what,
            )
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Unmount whatever is at the target path, and remove it."""
        with answering("NodeUnpublishVolume", context, self.end):
            target = parse_place(request, self.pods)
            ensure_no_link(target)
            mounts = self.volumes.unpublish(target)
            _LOG.info(
                "csi: pod %s volume %s: unmounted, %d mount(s)",
                target.pod_uid,
                target.volume,
                mounts,
            )
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Return no capability."""
        return csi_pb2.NodeGetCapabilitiesResponse()

    def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        """Return the node's ID."""
        return csi_pb2.NodeGetInfoResponse(node_id=self.node_id)
