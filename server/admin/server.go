package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/decode"
	"signet.example/internal/private"
	"signet.example/internal/unixsock"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/kinds"
	"signet.example/store"
	"signet.example/xds/effect"
)

const maxBytes = 64 << 20 // a whole mesh in one apply

// Config is what the admin socket is served from. Every field is needed.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Clock       func() time.Time
	Log         *slog.Logger
	Metrics     Metrics
	Stopping    <-chan struct{} // closed when the server begins to stop

	Trail Trail
	// Note writes a row of what was tried already, and is loud where it cannot.
	Note func(ctx context.Context, actor, action, detail string)

	Stored       Stored
	Past         Past
	Routing      Routing
	Proxies      Proxies
	Fleet        Fleet
	AgentRows    AgentRows
	Certificates Certificates
	Sessions     Sessions
	Policies     Policies
	Drafts       Drafts
	Tokens       Tokens
	Pin          func() []byte // of the root set, for tokens

	// Findings are what is wrong with everything, Warnings what a change would make wrong.
	Findings func(ctx context.Context) []*api.Finding
	Warnings func(before, after Model, named ...kinds.Key) []string
	// LogDirs are the folders in which hosts take access logs.
	LogDirs func() []string
	// CheckGroup reports what no host could show of what a NodeGroup asks for.
	CheckGroup func(identity.NodeGroup) error
}

// Certificates is what the issuance log has.
type Certificates interface {
	// Of is the record of a certificate that is good, nil if there is none.
	Of(serial string) *api.LogRecord
	// Read counts the records that are known here.
	Read() uint64
	// History calls each with everything that the log has, until each fails.
	History(ctx context.Context, each func(*api.Cert) error) error
	// CaughtUp returns when what was in the log at the call is known here.
	CaughtUp(ctx context.Context) error
	// HeldBy counts the certificates that were issued to an agent and are still good, and
	// tells when the last of them ends.
	HeldBy(spiffeID string) (n int32, last time.Time)
}

// Sessions are those of the connected agents.
type Sessions interface {
	// Explain asks the agents for a decision, nil if none has it.
	Explain(ctx context.Context, id string) (*api.Decision, error)
	// Decisions asks them for what they keep, each in turn, and names those that did not answer.
	Decisions(ctx context.Context, f *api.DecisionFilter) (list []*api.Decision, silent []string)
	// Wait returns what is closed at the next report, connect or disconnect.
	Wait() <-chan struct{}
}

// Tokens keeps the hashes of join tokens, durably on return.
type Tokens interface {
	PutToken(ctx context.Context, hash []byte, group string, expires time.Time) error
}

// Past is what there was.
type Past interface {
	// History is who changed what of the objects that are meant, in the last n revisions, the
	// newest first; what is known begins with since.
	History(ctx context.Context, of store.Key, at uint64, n int) (past []store.Past, since uint64, err error)
	// Back is what makes the objects as they were in a revision.
	Back(ctx context.Context, revision uint64) ([]store.Write, error)
}

// Routing knows how far proxies have come.
type Routing interface {
	// Mark has everything made that is stored, and returns a moment after that for Reached.
	Mark(ctx context.Context) (since uint64)
	// Reached reports whether an agent says that its proxies of a virtual node have what there
	// was at a moment, or what came later, and what they refused of that, or are not sent since
	// others did.
	Reached(agent string, of proxy.Ref, since uint64) (has bool, rejected []*api.ResourceStatus)
	// Settled reports whether nothing of a virtual node is on its way from host to host.
	Settled(of proxy.Ref) bool
}

// Drafts writes policies to begin with.
type Drafts interface {
	Policy(ctx context.Context, g *mesh.Graph, req *api.DraftPolicyRequest) (*api.DraftPolicyResponse, error)
}

// Proxies shows what proxies do and have.
type Proxies interface {
	// Routes predicts what a proxy does with a request.
	Routes(of proxy.Ref, req *api.RoutesRequest) (*api.RoutesResponse, error)
	// Configs lists what the proxies that are asked for are to have, and what each has acknowledged.
	Configs(g *mesh.Graph, req *api.ProxyConfigRequest) (*api.ProxyConfigResponse, error)
	// Effect is what the effects of a change come to.
	Effect(all []effect.Effect, leftOut int) (*api.Effect, error)
}

// Metrics are counted in.
type Metrics struct {
	AuditErrors prometheus.Counter
	Calls       *prometheus.CounterVec // method, code
}

// Server is what an operator asks over the Unix socket. Whoever may open the
// socket (0600) and has our uid, or root, may do everything; all of it is audited.
type Server struct {
	api.UnimplementedAdminServer

	cfg Config
	// large is held while large files are read: what they become is many times their size.
	large chan struct{}
	// followers has a place for each call that follows decisions.
	followers *semaphore.Weighted
}

// New serves what cfg has.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, large: make(chan struct{}, 1), followers: semaphore.NewWeighted(mostFollowers)}
}

// GRPC is the operators' face.
func (s *Server) GRPC() *grpc.Server {
	g := decode.NewServer(
		grpc.Creds(unixsock.Credentials(operators)),
		grpc.MaxRecvMsgSize(maxBytes), grpc.MaxSendMsgSize(maxBytes),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	api.RegisterAdminServer(g, s)
	return g
}

var errOperator = errors.New("the admin socket is for the server's own user and root")

// operators lets in our own uid and root, and nobody else.
func operators(p unixsock.Peer) error {
	if p.UID != 0 && p.UID != private.Self() {
		return errOperator
	}
	return nil
}

// actorOf is the operator in audit rows.
func actorOf(ctx context.Context) (string, error) {
	p, ok := peer.FromContext(ctx)
	if ok {
		if o, ok := p.AuthInfo.(unixsock.Peer); ok {
			return fmt.Sprintf("uid %d pid %d", o.UID, o.PID), nil
		}
	}
	return "", fault.Identity
}
