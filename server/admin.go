package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/attestation/jointoken"
	"signet.example/internal/plain"
	"signet.example/internal/unixsock"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

const (
	maxAdminBytes   = 64 << 20 // a whole mesh in one apply
	defaultTokenTTL = 10 * time.Minute
	maxTokenTTL     = 24 * time.Hour
)

// admin is what an operator asks over the Unix socket. Whoever may open the
// socket (0600) and has our uid, or root, may do everything; all of it is audited.
type admin struct {
	api.UnimplementedAdminServer
	*server
}

// adminServer is the operators' face.
func (s *server) adminServer() *grpc.Server {
	a := &admin{server: s}
	g := grpc.NewServer(
		grpc.Creds(unixsock.Credentials(operators)),
		grpc.MaxRecvMsgSize(maxAdminBytes), grpc.MaxSendMsgSize(maxAdminBytes),
		grpc.ConnectionTimeout(handshakeDeadline),
		grpc.UnaryInterceptor(a.unary), grpc.StreamInterceptor(a.stream),
	)
	api.RegisterAdminServer(g, a)
	return g
}

var errOperator = errors.New("the admin socket is for the server's own user and root")

// operators lets in our own uid and root, and nobody else.
func operators(p unixsock.Peer) error {
	if p.UID != 0 && int(p.UID) != os.Getuid() {
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

// unary audits a call before it is made, and its outcome. A call fails if its audit
// row cannot be written.
func (a *admin) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := methodName(info.FullMethod)
	if !recordsItself(req) {
		if err := a.intent(ctx, method, req); err != nil {
			return nil, fault.ToOperator(err)
		}
	}
	resp, err := next(ctx, req)
	if m, ok := resp.(proto.Message); ok && err == nil {
		api.Reconcile(m)
	}
	err = fault.ToOperator(err)
	a.outcome(ctx, method, req, err)
	return resp, err
}

// recordsItself reports whether a request is an apply, which is in the audit trail by
// the transaction that makes it: there is never one without the other, and a row of its own
// before would be one more wait for the disk.
func recordsItself(req any) bool {
	r, ok := req.(*api.ApplyRequest)
	return ok && !r.GetDryRun()
}

func (a *admin) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	method := methodName(info.FullMethod)
	if err := a.intent(ss.Context(), method, nil); err != nil {
		return fault.ToOperator(err)
	}
	err := fault.ToOperator(next(srv, ss))
	a.outcome(ss.Context(), method, nil, err)
	return err
}

func (a *admin) intent(ctx context.Context, method string, req any) error {
	actor, err := actorOf(ctx)
	if err != nil {
		return err
	}
	if err := a.store.Audit(ctx, actor, method, describe(req)); err != nil {
		a.metrics.auditErrors.Inc()
		return fmt.Errorf("%w: the audit row cannot be written, so nothing was done: %w", fault.Unavailable, err)
	}
	return nil
}

func (a *admin) outcome(ctx context.Context, method string, req any, err error) {
	code := status.Code(err)
	a.metrics.adminCalls.WithLabelValues(method, code.String()).Inc()
	if err == nil {
		return
	}
	if actor, actorErr := actorOf(ctx); actorErr == nil {
		a.audit(ctx, actor, method, strings.TrimSpace(describe(req)+" failed: "+code.String()))
	}
	a.log.InfoContext(ctx, "admin call failed", slog.String("method", method), slog.Any("err", err))
}

func methodName(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }

// describe is a request as an audit row has it: what it names, never what it holds.
func describe(req any) string {
	switch r := req.(type) {
	case *api.ApplyRequest:
		files := make([]string, 0, len(r.GetSources()))
		for _, s := range r.GetSources() {
			files = append(files, plain.Text(s.GetFile()))
		}
		return fmt.Sprintf("dry_run=%t skip_foreign=%t files=%q", r.GetDryRun(), r.GetSkipForeign(), files)
	case *api.CreateTokenRequest:
		return fmt.Sprintf("group=%q ttl=%s", plain.Text(r.GetGroup()), r.GetTtl().AsDuration())
	case *api.DeleteRequest:
		return fmt.Sprintf("dry_run=%t kind=%q mesh=%q name=%q", r.GetDryRun(), plain.Text(r.GetKind()), plain.Text(r.GetMesh()), plain.Text(r.GetName()))
	case *api.GetRequest:
		return fmt.Sprintf("kind=%q mesh=%q name=%q", plain.Text(r.GetKind()), plain.Text(r.GetMesh()), plain.Text(r.GetName()))
	case *api.BanAgentRequest:
		return fmt.Sprintf("dry_run=%t agent=%q reason=%q", r.GetDryRun(), plain.Text(r.GetAgent()), plain.Text(r.GetReason()))
	case *api.ExplainRequest:
		return fmt.Sprintf("id=%q", plain.Text(r.GetId()))
	case *api.SyncPolicyRequest:
		return fmt.Sprintf("source=%q", plain.Text(r.GetSource()))
	case proto.Message, nil:
	}
	return ""
}

// CreateToken mints a join token for a group. The store has only its hash.
func (a *admin) CreateToken(ctx context.Context, req *api.CreateTokenRequest) (*api.CreateTokenResponse, error) {
	ttl := defaultTokenTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if ttl <= 0 || ttl > maxTokenTTL {
		return nil, fault.New(fault.Invalid, "ttl %s is not between 0 and %s", ttl, maxTokenTTL)
	}
	if !a.model().hasGroup(req.GetGroup()) {
		return nil, fault.New(fault.NotFound, "NodeGroup %q does not exist%s; apply one first (docs/CONFIGURATION.md)", plain.Text(req.GetGroup()), others(a.model(), kinds.NodeGroup))
	}
	token, err := jointoken.New(a.authority.Roots().Set.Pin())
	if err != nil {
		return nil, err
	}
	expires := a.clock().Add(ttl).UTC()
	if err := a.store.PutToken(ctx, token.Hash(), req.GetGroup(), expires); err != nil {
		return nil, fmt.Errorf("keep the token: %w", err)
	}
	return &api.CreateTokenResponse{Token: token.Reveal(), Expires: timestamppb.New(expires)}, nil
}

// SyncPolicy fetches now.
func (a *admin) SyncPolicy(ctx context.Context, req *api.SyncPolicyRequest) (*api.SyncPolicyResponse, error) {
	resp := &api.SyncPolicyResponse{}
	for _, src := range a.model().sources {
		if req.GetSource() == "" || req.GetSource() == src.Name {
			st, err := a.policies.Sync(ctx, src)
			if err != nil {
				return nil, err
			}
			resp.Statuses = append(resp.Statuses, st)
		}
	}
	if req.GetSource() != "" && len(resp.GetStatuses()) == 0 {
		return nil, fault.New(fault.NotFound, "PolicySource %q does not exist", plain.Text(req.GetSource()))
	}
	return resp, nil
}

// Explain looks a decision up on every connected agent.
func (a *admin) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainResponse, error) {
	id, ok := proxy.ParseDecisionID(req.GetId())
	if !ok {
		return nil, fault.New(fault.Invalid, "%q is not a decision id: 32 hex digits, as in the header "+proxy.HeaderDecisionID, plain.Text(req.GetId()))
	}
	d, err := a.sessions.Explain(ctx, id)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fault.New(fault.NotFound, "none of the %d connected agents has decision %s: agents keep a bounded number of them", len(a.sessions.Connected()), id)
	}
	return &api.ExplainResponse{Decision: d}, nil
}
