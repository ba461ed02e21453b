//go:build grpc_before_1_63

package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
)

// dial is for a grpc-go without NewClient and without the unix resolver, as Debian 12 has it:
// go build -tags grpc_before_1_63
func dial(ctx context.Context, socket string) (*grpc.ClientConn, error) {
	return grpc.DialContext(ctx, "passthrough:///localhost", grpc.WithInsecure(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}))
}
