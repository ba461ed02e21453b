"""The gRPC services: a method resolves the caller, collects facts and converts them."""
