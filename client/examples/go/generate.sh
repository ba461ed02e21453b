#!/bin/sh
# Generates netutilpb/ again from the .proto. Needs protoc, protoc-gen-go and protoc-gen-go-grpc;
# the committed code is by those of Debian 12. An argument names another directory for the output.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
package=example.org/facts/netutilpb
exec protoc -I "$here/../../../proto" \
  --go_out="${1:-$here}" --go_opt=module=example.org/facts \
  --go_opt=Mnetutil/v1alpha/netutil.proto="$package" \
  --go-grpc_out="${1:-$here}" --go-grpc_opt=module=example.org/facts \
  --go-grpc_opt=Mnetutil/v1alpha/netutil.proto="$package" \
  netutil/v1alpha/netutil.proto
