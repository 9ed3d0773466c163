package ads

import (
	"context"
	"errors"
	"log/slog"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
)

// Client follows a Relay view over delta ADS.
type Client struct {
	// Conn is the connection to the server.
	Conn grpc.ClientConnInterface
	// Node identifies the view.
	Node *corev3.Node
	// Types are subscribed with a wildcard, in this order; ViewType is always added, last.
	Types []string
	// Have is the last complete set, from which Run resumes; Run keeps it current.
	Have *Set
	// Complete says whether got is what view describes; nil accepts every boundary.
	Complete func(view *Resource, got *Set) bool
	// OnSet is called with each complete set (without the view's own resource) and its view.
	OnSet func(*Set, *Resource)
	// Log receives what was odd about the server's answers; nil discards it.
	Log *slog.Logger
}

// Run follows the server until the stream breaks or ctx ends; call it again to resume.
func (c *Client) Run(ctx context.Context) error { return errors.ErrUnsupported }
