package authz

import (
	"context"
	"log/slog"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signet.example/policy"
)

// Options of a Server. The zero value works.
type Options struct {
	// Record is called with each decision, from the goroutine that made it,
	// before the answer is sent; it must not block.
	Record func(Record)
	// MaxConcurrent checks at a time; one more is denied as unavailable. 0: 256.
	MaxConcurrent int
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Log is slog.Default() if nil.
	Log *slog.Logger
}

// Config is everything that decisions are made by; it is replaced as a whole.
type Config struct {
	// Policies by revision id: a request is judged by the one it is stamped with.
	Policies []*policy.Compiled
	Issuers  []Issuer
	// Bans: SPIFFE IDs that are refused as source and as destination.
	Bans map[string]bool
	// TokenHashKey keys the hash of tokens in records; without it there is none.
	TokenHashKey []byte
}

// Issuer of end-user tokens; JWKS is RFC 7517 JSON.
type Issuer struct {
	Name, Issuer string
	Audiences    []string
	JWKS         []byte
}

// Server implements envoy.service.auth.v3.Authorization.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	opts Options
}

// New returns a Server that denies everything until it is configured.
func New(opts Options) *Server { return &Server{opts: opts} }

// Configure swaps what decisions are made by. Checks under way end with what
// they began with.
func (s *Server) Configure(c Config) {}

// Check decides one request. It never returns an error.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	panic("not yet")
}
