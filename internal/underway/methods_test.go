package underway_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// gRPC makes a stream with a goroutine of each call and then refuses it: 30 KB of garbage for
// 15 bytes, at the cost of all whom the process serves.
func TestCallsThatNobodyCanMeanReachNoServer(t *testing.T) {
	const sent, few = 500, 16
	for name, path := range map[string]string{"of a method that there is not": "/x/y", "without a message": check} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, boundless)
			f := r.framed("only")
			for id := uint32(1); id < 2*sent; id += 2 {
				if f.call(id, path, "x", true) != nil { // it is closed by now
					break
				}
			}
			f.ends()
			if r.begun.Load() > few || r.gaveWay("only") != 1 {
				t.Errorf("of %d calls %d reached the server, and the connection was closed %d times", sent, r.begun.Load(), r.gaveWay("only"))
			}
			r.empty()
		})
	}
}

// A client that is newer than we are tries what we do not have, and goes on without it.
func TestAFewCallsOfAMethodThatThereIsNotAreAnswered(t *testing.T) {
	r := newRig(t, boundless)
	conn := r.client("only")
	for range 4 {
		if err := conn.Invoke(t.Context(), "/x/y", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	}
	for range 100 {
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if r.gaveWay("only") != 0 {
		t.Error("its connection was closed")
	}
}
