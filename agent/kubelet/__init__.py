"""The two local gRPC sockets of the kubelet: PodResources and the Pods API."""
