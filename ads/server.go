package ads

import (
	"context"
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// Views finds the view of a client. It is called once per stream, with the
// node of the first request, from the stream's goroutine and with its context;
// a gRPC status error ends the stream with that status.
type Views interface {
	View(ctx context.Context, node *corev3.Node) (*View, error)
}

// Server is the AggregatedDiscoveryService, delta and state-of-the-world.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	// Views finds each stream's view.
	Views Views
	// Peer names whose a stream is: what all streams of one name together is bounded.
	// Nil: all are one's.
	Peer func(ctx context.Context) string
	// Log receives what went wrong on streams; nil discards it.
	Log *slog.Logger
	// Drain is how long a proxy drains connections of a listener that changed or
	// went away (Envoy's --drain-time-s): they stay on the routes they had, so
	// what leaves the set together with such a change is kept as much longer.
	// Zero suits listeners whose route configurations keep their names.
	Drain time.Duration
	// Linger is how long a proxy may still need what its routes led to before they
	// changed: a request that was routed waits for a connection, and a retry fails
	// if the cluster is gone meanwhile. So what leaves the set together with a
	// change of routes is kept as much longer.
	Linger time.Duration
	// Events, if set, is called from stream goroutines and must not block.
	Events func(Event)

	names names
}

// Register adds the service to g, which should have been made with ServerOptions.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// StreamAggregatedResources serves one state-of-the-world stream until it ends.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g, false, func() request {
		req, err := g.Recv()
		return request{sotw: req, err: err}
	})
}

// DeltaAggregatedResources serves one delta stream until it ends.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g, true, func() request {
		req, err := g.Recv()
		return request{delta: req, err: err}
	})
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// emit hands an event on, with the view's name: once for each resource that it is about, or
// as it is.
func (s *Server) emit(view string, e Event, about ...*Resource) {
	if s.Events == nil {
		return
	}
	e.View = view
	if len(about) == 0 {
		s.Events(e)
	}
	for _, r := range about {
		e.Name, e.Version = r.Name, r.Version
		s.Events(e)
	}
}
