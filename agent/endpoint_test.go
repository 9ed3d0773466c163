package agent_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"signet.example/api"
	"signet.example/test/parts"
)

var rpc = regexp.MustCompile(`(?m)^\s*rpc (\w+)\(`)

// WAPI-02, WEP-18, 19, 20: what is added to the endpoint is a service beside it, which
// reflection shows.
func TestTheEndpointServesTheWorkloadAPIAsItIsPublishedAndReflectionAlone(t *testing.T) {
	published, err := os.ReadFile(parts.Shared(t, "testdata", "spiffe-conformance", "workloadapi.proto"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, nil)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true"), 10*time.Second)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(r.dial("workload.sock")).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var services []string
	for _, s := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	slices.Sort(services)
	if want := []string{"SpiffeWorkloadAPI", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}; !slices.Equal(services, want) {
		t.Errorf("the services are %v, want %v", services, want)
	}
	described := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "SpiffeWorkloadAPI"}})
	var methods []string
	for _, raw := range described.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		for _, s := range file.GetService() {
			for _, m := range s.GetMethod() {
				methods = append(methods, m.GetName())
			}
		}
	}
	var want []string
	for _, m := range rpc.FindAllStringSubmatch(string(published), -1) {
		want = append(want, m[1])
	}
	if slices.Sort(want); len(want) < 5 || !slices.Equal(slices.Sorted(slices.Values(methods)), want) {
		t.Errorf("the methods are %v, want %v", methods, want)
	}
}

// WAPI-07, 08: also where nothing has changed, and beside a stream that is open.
func TestEachRequestIsAnsweredAtOnceWithEverything(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), entry("two", "/shop/two", self(t))}
	})
	r.await("both SVIDs", func() bool {
		m, err := r.fetchOnce()
		return err == nil && len(m.GetSvids()) == 2
	})
	client := workload.NewSpiffeWorkloadAPIClient(r.dial("workload.sock"))
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "workload.spiffe.io", "true"), 10*time.Second)
	defer cancel()
	for range 3 {
		begun := time.Now()
		stream, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if ids := next(t, stream); len(ids) != 2 {
			t.Errorf("got %v", ids)
		}
		bundles, err := client.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := bundles.Recv(); err != nil || len(m.GetBundles()) != 1 {
			t.Errorf("got %v, %v", m, err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	}
}
