package attestation_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"signet.example/attestation"
	"signet.example/identity"
)

// attested answers with what it knows of its caller.
type attested struct {
	healthpb.UnimplementedHealthServer
	mu   sync.Mutex
	seen []*attestation.Peer
	sels identity.Selectors
}

func (s *attested) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "no peer")
	}
	sels, err := p.Selectors(ctx)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.sels = append(s.seen, p), sels
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func serveAttested(t *testing.T) (*attested, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &attested{}
	g := grpc.NewServer(grpc.Creds(new(attestation.Attestor).Credentials()))
	healthpb.RegisterHealthServer(g, srv)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return srv, socket
}

func call(t *testing.T, socket string) error {
	t.Helper()
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is lost
	_, err = healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

func TestRPCKnowsItsCallerAndLetsGoOfItWithTheConnection(t *testing.T) {
	srv, socket := serveAttested(t)
	if err := call(t, socket); err != nil {
		t.Fatal(err)
	}
	if !has(srv.sels, "unix:uid:"+strconv.Itoa(os.Geteuid())) {
		t.Errorf("selectors %v", srv.sels)
	}
	eventually(t, "the peer is closed", func() bool { return errors.Is(srv.seen[0].Alive(), attestation.ErrClosed) })
}

func TestTwoThousandConnectionsLeaveNoDescriptorBehind(t *testing.T) {
	_, socket := serveAttested(t)
	if err := call(t, socket); err != nil { // what gRPC opens once, it has opened
		t.Fatal(err)
	}
	baseline := countFDs(t)
	const callers, each = 20, 100
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				if n%20 == 0 { // some make a call, the others go as they came
					if err := call(t, socket); err != nil {
						t.Errorf("caller %d: %v", i, err)
					}
					continue
				}
				c, err := net.Dial("unix", socket)
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "as many descriptors as before", func() bool { return countFDs(t) <= baseline })
}

func TestConnectionOfAProcessThatIsGoneEndsInTheHandshake(t *testing.T) {
	s := newStage(t)
	child, conn := s.connect(t, nil)
	child.exit()
	before := countFDs(t)
	_, _, err := new(attestation.Attestor).Credentials().ServerHandshake(conn)
	if !errors.Is(err, attestation.ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestCredentialsAreForUnixSocketsAndServersOnly(t *testing.T) {
	c := new(attestation.Attestor).Credentials()
	here, there := net.Pipe()
	defer func() { _ = here.Close() }()  // nothing is lost
	defer func() { _ = there.Close() }() // nothing is lost
	if _, _, err := c.ServerHandshake(here); err == nil {
		t.Error("a pipe was attested")
	}
	if _, _, err := c.ClientHandshake(t.Context(), "", here); err == nil {
		t.Error("a client was let through")
	}
	if _, ok := attestation.PeerFromContext(t.Context()); ok {
		t.Error("a peer out of nothing")
	}
}
