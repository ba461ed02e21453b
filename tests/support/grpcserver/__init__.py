"""A client by hand and handlers, for tests of the gRPC server."""
