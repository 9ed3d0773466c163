package agent_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"signet.example/api"
)

// made is what this process, in which the agent runs, has allocated so far.
func made() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.TotalAlloc) //nolint:gosec // below a terabyte
}

// empty is a field that is there so often, and empty, two bytes each, within others.
func empty(times int, path ...protowire.Number) []byte {
	last := len(path) - 1
	b := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, path[last], protowire.BytesType), nil), times)
	for i := last - 1; i >= 0; i-- {
		b = protowire.AppendBytes(protowire.AppendTag(nil, path[i], protowire.BytesType), b)
	}
	return b
}

// A message of 1 MiB became 80 MiB of objects.
func TestMessagesFullOfNothingTakeNoMemoryOfTheAgent(t *testing.T) {
	t.Run("of a process that no binding fits", func(t *testing.T) { fullOfNothing(t, "unix:path:/bin/other", codes.PermissionDenied) })
	t.Run("of a proxy", func(t *testing.T) { fullOfNothing(t, self(t), codes.Internal) })
}

func fullOfNothing(t *testing.T, path string, refused codes.Code) {
	t.Helper()
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", path)} })
	r.await("the agent has its state", func() bool {
		s := r.ads("shop/web")
		_, err := s.Recv()
		return status.Code(err) != codes.Unavailable
	})
	req := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "shop/web"}}
	req.ProtoReflect().SetUnknown(empty(500_000, 1, 9)) // node.extensions
	const calls = 20
	before := made()
	for range calls { // on a connection each: two messages of 1 MiB are more than one may have under way
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.dial("xds.sock")).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(req) // it may be refused before
		if _, err = stream.Recv(); status.Code(err) != refused {
			t.Fatal(err)
		}
	}
	took := made() - before
	t.Logf("%d MiB were allocated for %d MiB", took>>20, calls)
	if took > calls*12<<20 { // of 80 each; the client is in this process, too
		t.Errorf("%d MiB were allocated for %d messages", took>>20, calls)
	}
}

func TestAProcessWithoutABindingIsRefusedBeforeItSaysAnything(t *testing.T) {
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", "unix:path:/bin/other")} })
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(r.dial("xds.sock"))
	r.await("it is refused", func() bool {
		stream, err := client.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := stream.Recv()
			ended <- err
		}()
		select {
		case err := <-ended:
			return status.Code(err) == codes.PermissionDenied
		case <-time.After(5 * time.Second):
			t.Fatal("the stream waits for a request")
			return false
		}
	})
}

func TestAProxysMessagesFullOfNothingTakeNoMemoryOfTheAuthzProcess(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	pid := authzPID(t)
	req := &authv3.CheckRequest{}
	req.ProtoReflect().SetUnknown(empty(500_000, 1, 4, 2, 13, 1)) // attributes.request.http.header_map.headers
	var g errgroup.Group
	for range 8 {
		full := authv3.NewAuthorizationClient(r.dial("authz.sock"))
		g.Go(func() error {
			for range 8 {
				if _, err := full.Check(t.Context(), req); status.Code(err) != codes.Internal {
					t.Errorf("full of nothing: %v", err)
				}
			}
			return nil
		})
	}
	_ = g.Wait() // it has none
	held := resident(t, pid)
	t.Logf("the authz process has %d MiB", held>>20)
	if held > 250<<20 {
		t.Errorf("the authz process has %d MiB", held>>20)
	}
	if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK || authzPID(t) != pid {
		t.Errorf("a call beside them: %v %v", c, err)
	}
}
