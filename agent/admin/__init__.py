"""What `v1alpha.Node` answers to the administrator of the node."""
