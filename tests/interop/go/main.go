// grpc-go: `client TARGET CASE [AUTHORITY]`, as cases.py says. A target that begins with `dial:`
// is a path that the program's own dialer connects to.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.org/interop/netutilpb"
)

const (
	many          = 1000
	keepaliveTime = 10 * time.Second // the shortest that grpc-go takes
	watched       = 25 * time.Second
)

type result map[string]interface{}

type client struct {
	agent  netutilpb.NetUtilClient
	health grpc_health_v1.HealthClient
}

func main() {
	target, name := os.Args[1], os.Args[2]
	options := []grpc.DialOption{grpc.WithInsecure()}
	if len(os.Args) > 3 {
		options = append(options, grpc.WithAuthority(os.Args[3]))
	}
	if path := strings.TrimPrefix(target, "dial:"); path != target {
		target = "passthrough:///unix://" + path
		options = append(options, grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			}))
	}
	if name == "keepalive" {
		options = append(options,
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime}))
	}
	connection, err := grpc.Dial(target, options...)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	asking := &client{
		agent:  netutilpb.NewNetUtilClient(connection),
		health: grpc_health_v1.NewHealthClient(connection),
	}
	run, found := map[string]func(context.Context) result{
		"unary":          asking.unary,
		"error":          asking.error,
		"large":          asking.large,
		"uploads":        asking.uploads,
		"watch":          asking.watch,
		"ended":          asking.ended,
		"keepalive":      asking.keepalive,
		"many":           asking.many,
		"gzip":           asking.gzip,
		"deadline":       asking.deadline,
		"metadata":       asking.metadata,
		"large_metadata": asking.largeMetadata,
		"health":         asking.check,
		"load":           asking.load,
		"load_waiting":   asking.loadWaiting,
	}[name]
	if !found {
		log.Fatalf("no case %q", name)
	}
	show(run(context.Background()))
}

func show(found result) {
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func failure(err error) result {
	return result{"code": status.Code(err), "message": status.Convert(err).Message()}
}

// pod is the code of a call.
func (c *client) pod(ctx context.Context) codes.Code {
	_, err := c.agent.GetPod(ctx, &netutilpb.PodRequest{})
	return status.Code(err)
}

func (c *client) unary(ctx context.Context) result {
	pod, err := c.agent.GetPod(ctx, &netutilpb.PodRequest{})
	if err != nil {
		return failure(err)
	}
	return result{"code": 0, "name": pod.GetName()}
}

func (c *client) error(ctx context.Context) result {
	_, err := c.agent.GetEnv(ctx, &netutilpb.EnvRequest{Key: "NOT_SET"})
	found := failure(err)
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			found["reason"], found["domain"] = info.GetReason(), info.GetDomain()
		}
	}
	return found
}

func (c *client) large(ctx context.Context) result {
	environment, err := c.agent.GetEnv(ctx, &netutilpb.EnvRequest{})
	if err != nil {
		return failure(err)
	}
	size := 0
	for key, value := range environment.GetEnvs() {
		size += len(key) + len(value)
	}
	return result{"code": 0, "bytes": size}
}

// first opens a Watch and reads its first snapshot.
func (c *client) first(ctx context.Context) (netutilpb.NetUtil_WatchClient, string) {
	stream, err := c.agent.Watch(ctx, &netutilpb.WatchRequest{})
	if err != nil {
		log.Fatal(err)
	}
	snapshot, err := stream.Recv()
	if err != nil {
		log.Fatal(err)
	}
	return stream, snapshot.GetSnapshot().GetPod().GetName()
}

func end(stream netutilpb.NetUtil_WatchClient) codes.Code {
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return codes.OK
		} else if err != nil {
			return status.Code(err)
		}
	}
}

func (c *client) watch(ctx context.Context) result {
	cancelled, cancel := context.WithCancel(ctx)
	stream, name := c.first(cancelled)
	cancel()
	return result{"name": name, "code": end(stream), "then": c.pod(ctx)}
}

func (c *client) keepalive(ctx context.Context) result {
	cancelled, cancel := context.WithCancel(ctx)
	stream, _ := c.first(cancelled)
	time.AfterFunc(watched, cancel)
	return result{"code": end(stream), "then": c.pod(ctx)}
}

func (c *client) ended(ctx context.Context) result {
	stream, _ := c.first(ctx)
	fmt.Println("watching")
	return result{"code": end(stream)}
}

// tally counts how calls ended.
type tally struct {
	sync.Mutex
	codes  map[uint32]int
	errors []string
}

func newTally() *tally {
	return &tally{codes: map[uint32]int{}, errors: []string{}}
}

func (t *tally) add(err error) {
	t.Lock()
	defer t.Unlock()
	t.codes[uint32(status.Code(err))]++
	if err != nil {
		t.errors = append(t.errors, err.Error())
	}
}

// atOnce counts how calls that are made at the same time end.
func atOnce(count int, ask func(number int) error) *tally {
	counted := newTally()
	var all sync.WaitGroup
	for i := 0; i < count; i++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			counted.add(ask(number))
		}(i)
	}
	all.Wait()
	return counted
}

func (c *client) many(ctx context.Context) result {
	counted := atOnce(many, func(int) error {
		_, err := c.agent.GetPod(ctx, &netutilpb.PodRequest{})
		return err
	})
	return result{"codes": counted.codes}
}

func (c *client) uploads(ctx context.Context) result {
	counted := atOnce(110, func(number int) error {
		size := 60000
		if number >= 100 {
			size = 100000
		}
		_, err := c.agent.GetEnv(ctx, &netutilpb.EnvRequest{Key: strings.Repeat("k", size)})
		return err
	})
	return result{"codes": counted.codes, "then": c.pod(ctx)}
}

func (c *client) gzip(ctx context.Context) result {
	var trailing metadata.MD
	_, err := c.agent.GetPod(ctx, &netutilpb.PodRequest{},
		grpc.UseCompressor(gzip.Name), grpc.Trailer(&trailing))
	if err != nil {
		return failure(err)
	}
	return result{"code": 0, "encoding": trailing["request-encoding"][0]}
}

func (c *client) deadline(ctx context.Context) result {
	limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	stream, err := c.agent.Watch(limited, &netutilpb.WatchRequest{})
	if err != nil {
		return failure(err)
	}
	return result{"code": end(stream)}
}

func (c *client) metadata(ctx context.Context) result {
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	sent := metadata.AppendToOutgoingContext(ctx,
		"echo-text", "a value", "echo-bytes-bin", string(bytes))
	var initial, trailing metadata.MD
	_, err := c.agent.GetPod(sent, &netutilpb.PodRequest{},
		grpc.Header(&initial), grpc.Trailer(&trailing))
	if err != nil {
		return failure(err)
	}
	return result{
		"code":     0,
		"initial":  echoed(initial, "initial-"),
		"trailing": echoed(trailing, ""),
	}
}

func echoed(found metadata.MD, prefix string) map[string]string {
	return map[string]string{
		"text":  found[prefix+"echo-text"][0],
		"bytes": hex.EncodeToString([]byte(found[prefix+"echo-bytes-bin"][0])),
	}
}

func (c *client) largeMetadata(ctx context.Context) result {
	large := metadata.AppendToOutgoingContext(ctx, "large", strings.Repeat("x", 9000))
	return result{"code": c.pod(large), "then": c.pod(ctx)}
}

func (c *client) check(ctx context.Context) result {
	found, statuses := []codes.Code{}, []int32{}
	for _, service := range []string{"", "v1alpha.NetUtil", "not.There"} {
		answer, err := c.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		found = append(found, status.Code(err))
		if err == nil {
			statuses = append(statuses, int32(answer.GetStatus()))
		}
	}
	return result{"codes": found, "statuses": statuses}
}

func (c *client) load(ctx context.Context) result {
	return c.calling(ctx)
}

func (c *client) loadWaiting(ctx context.Context) result {
	return c.calling(ctx, grpc.WaitForReady(true))
}

func (c *client) calling(ctx context.Context, options ...grpc.CallOption) result {
	pod := func(ctx context.Context) error {
		_, err := c.agent.GetPod(ctx, &netutilpb.PodRequest{}, options...)
		return err
	}
	slow := func(ctx context.Context) error {
		_, err := c.agent.GetHugepages(ctx, &netutilpb.HugepagesRequest{}, options...)
		return err
	}
	large := func(ctx context.Context) error {
		_, err := c.agent.GetEnv(ctx, &netutilpb.EnvRequest{}, options...)
		return err
	}
	counted, ended := newTally(), make(chan struct{})
	call := func(ask func(context.Context) error) {
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		counted.add(ask(limited))
	}
	var all sync.WaitGroup
	for _, ask := range []func(context.Context) error{slow, large, pod, pod} {
		call(ask)
		all.Add(1)
		go func(ask func(context.Context) error) {
			defer all.Done()
			for {
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
					call(ask)
				}
			}
		}(ask)
	}
	fmt.Println("calling")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
	close(ended)
	all.Wait()
	return result{"codes": counted.codes, "errors": counted.errors}
}
