// Sidecar is what the agent replaces, as plainly as it is written in Go: a gRPC server on a Unix
// socket that answers the sidecar's three calls for the pod that it runs in.
//
//	sidecar SOCKET CPUSET NETWORK_STATUS
//
// CPUSET is the container's cpuset file, NETWORK_STATUS the file that a downward API volume holds
// the annotation k8s.v1.cni.cncf.io/network-status in.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.org/sidecar/netutilpb"
)

type sidecar struct {
	netutilpb.UnimplementedNetUtilServer
	cpuset        string
	networkStatus string
}

func (s *sidecar) GetCPUInfo(_ context.Context, _ *netutilpb.CPURequest) (*netutilpb.CPUResponse, error) {
	text, err := os.ReadFile(s.cpuset)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &netutilpb.CPUResponse{Cpuset: strings.TrimSpace(string(text))}, nil
}

func (s *sidecar) GetEnv(_ context.Context, request *netutilpb.EnvRequest) (*netutilpb.EnvResponse, error) {
	pid, err := strconv.Atoi(request.GetPid())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	block, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	envs := map[string]string{}
	for _, entry := range strings.Split(string(block), "\x00") {
		name, value, found := strings.Cut(entry, "=")
		if found && (request.GetKey() == "" || request.GetKey() == name) {
			envs[name] = value
		}
	}
	return &netutilpb.EnvResponse{Envs: envs}, nil
}

func (s *sidecar) GetNetworkStatus(
	_ context.Context, request *netutilpb.NetworkStatusRequest,
) (*netutilpb.NetworkStatusResponse, error) {
	text, err := os.ReadFile(s.networkStatus)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	var networks []struct {
		Name      string   `json:"name"`
		Interface string   `json:"interface"`
		Mac       string   `json:"mac"`
		IPs       []string `json:"ips"`
	}
	if err := json.Unmarshal(text, &networks); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	response := &netutilpb.NetworkStatusResponse{}
	for _, one := range networks {
		if request.GetInt() == "" || request.GetInt() == one.Interface {
			response.Status = append(response.Status, &netutilpb.NetworkStatus{
				Name: one.Name, Interface: one.Interface, Mac: one.Mac, Ips: one.IPs,
			})
		}
	}
	return response, nil
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: sidecar SOCKET CPUSET NETWORK_STATUS")
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	netutilpb.RegisterNetUtilServer(server, &sidecar{cpuset: os.Args[2], networkStatus: os.Args[3]})
	log.Fatal(server.Serve(listener))
}
