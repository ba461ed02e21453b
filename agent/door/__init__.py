"""Connections: who may connect, who is at the other end, and bytes from there to the gRPC server.

gRPC's own server shows no credentials of its peers. So the door accepts on the
public socket, identifies the peer, and relays the bytes to the gRPC server's
private socket from an outgoing socket that is bound to a fresh name. gRPC
reports that name as the peer of each call, and the table turns it back into
the identified caller.
"""
