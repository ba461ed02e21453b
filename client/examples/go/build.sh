#!/bin/sh
# Generates the client's code and builds ./facts. Needs protoc, protoc-gen-go,
# protoc-gen-go-grpc and Go. Arguments go to `go build`.
set -eu
cd "$(dirname "$0")"
proto=../../../proto
package=example.org/facts/netutilpb
protoc -I "$proto" \
  --go_out=. --go_opt=module=example.org/facts \
  --go_opt=Mnetutil/v1alpha/netutil.proto="$package" \
  --go-grpc_out=. --go-grpc_opt=module=example.org/facts \
  --go-grpc_opt=Mnetutil/v1alpha/netutil.proto="$package" \
  netutil/v1alpha/netutil.proto
exec go build -o facts "$@" .
