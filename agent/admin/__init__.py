"""Reports for the administrator of the node: `v1alpha.Node` answers with them."""
