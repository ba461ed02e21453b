// Facts prints which pod this process is in, its CPUs and its interfaces. An error is printed
// with the agent's reason, which docs/troubleshooting.md explains.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"example.org/facts/netutilpb"
)

func main() {
	socket := os.Getenv("NETUTIL_SOCKET")
	if socket == "" {
		socket = "/etc/netutil/net.sock"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := facts(ctx, socket); err != nil {
		fmt.Fprintln(os.Stderr, explained(err))
		os.Exit(1)
	}
}

func facts(ctx context.Context, socket string) error {
	conn, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	agent := netutilpb.NewNetUtilClient(conn)

	pod, err := agent.GetPod(ctx, &netutilpb.PodRequest{})
	if err != nil {
		return err
	}
	fmt.Printf("pod %s/%s container %s\n", pod.GetNamespace(), pod.GetName(), pod.GetContainerName())

	cpu, err := agent.GetCPUInfo(ctx, &netutilpb.CPURequest{})
	if err != nil {
		return err
	}
	fmt.Printf("cpus %s\n", cpu.GetEffectiveCpus())

	networks, err := agent.GetNetworkStatus(ctx, &netutilpb.NetworkStatusRequest{})
	if err != nil {
		return err
	}
	for _, one := range networks.GetStatus() {
		fmt.Printf("interface %s %v\n", one.GetInterface(), one.GetIps())
	}

	_, err = agent.GetEnv(ctx, &netutilpb.EnvRequest{Key: "NOT_SET"})
	fmt.Printf("NOT_SET: %s\n", explained(err))
	return nil
}

// explained is the reason and the sentence that the agent gave, or the error as it is.
func explained(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "netutil" {
			return fmt.Sprintf("%s: %s", info.GetReason(), status.Convert(err).Message())
		}
	}
	return fmt.Sprint(err)
}
