package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/conns"
	"signet.example/store"
)

// letIn admits every run of every agent but those of one that is in use elsewhere.
type letIn struct{ elsewhere error }

func (l letIn) Admit(context.Context, string, string, netip.Addr) error { return l.elsewhere }

// served is access for agent x, which calls over the connection that ctx is of. What it
// was refused is noted.
func served(t *testing.T, now time.Time) (a *Access, ctx context.Context, rows *[]string) {
	t.Helper()
	root := (&testAuthority{t: t}).sign("", now, now.Add(4*time.Hour))
	leaf := root.sign("/signet/agent/x", now, now.Add(time.Hour))
	rows = &[]string{}
	a = New(Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("test.example"), Roots: rootsOf(root.cert), Roster: rosterOf(store.Agent{ID: "x", Group: "g", Method: "m", Selectors: []string{"m:role:web"}}),
		Principal: alone, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused"}, []string{"method"}),
		TurnedAway: func(_ context.Context, c *Caller, action Action, why string) {
			*rows = append(*rows, fmt.Sprintf("%s: %s %s", c, action, why))
		},
	})
	a.Connections, a.Instances = noConnections{}, letIn{}
	state := tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf.cert}}
	return a, peer.NewContext(t.Context(), &peer.Peer{
		Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}, AuthInfo: &tlsPeer{TLSInfo: credentials.TLSInfo{State: state}},
	}), rows
}

func TestAMethodIsOfThoseWhoProveWhatItsRuleAsks(t *testing.T) {
	a, ctx, rows := served(t, time.Now().Add(-time.Minute).Truncate(time.Second))
	call := func(ctx context.Context, method string) error {
		_, err := a.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
			_, err := CallerOf(ctx)
			return nil, err
		})
		return err
	}
	for _, c := range []struct {
		what, method string
		ctx          context.Context
		want         codes.Code
	}{
		{"an agent asks what agents may", api.AgentAPI_Issue_FullMethodName, ctx, codes.OK},
		{"an SVID is no host key", api.AgentAPI_Attest_FullMethodName, ctx, codes.Unauthenticated},
		{"nobody decided on the method", "/signet.v1alpha1.AgentAPI/Later", ctx, codes.PermissionDenied},
		{"it is an operator's", api.Admin_Apply_FullMethodName, ctx, codes.PermissionDenied},
		{"there is no connection", api.AgentAPI_Issue_FullMethodName, t.Context(), codes.Unauthenticated},
	} {
		if err := call(c.ctx, c.method); status.Code(err) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.want != codes.OK && testutil.ToFloat64(a.cfg.Refused.WithLabelValues(c.method)) != 1 {
			t.Errorf("%s: it is not counted", c.what)
		}
	}
	if len(*rows) != 1 || !strings.Contains((*rows)[0], "attest") { // of the caller that is known, and of a method that is in the audit trail
		t.Errorf("%q", *rows)
	}
	if _, err := CallerOf(ctx); err == nil {
		t.Error("a handler that no interceptor came before has a caller")
	}
	a.Instances = letIn{errors.New("it is in use elsewhere")}
	if err := call(ctx, api.AgentAPI_Issue_FullMethodName); err == nil {
		t.Error("another run of the agent is let in")
	}
}

// told is what connections are told.
type told struct {
	noConnections

	of []conns.Caller
}

func (t *told) Verified(_ net.Addr, by conns.Caller) { t.of = append(t.of, by) }

// What agents of one role have together is no more than another's share.
func TestAConnectionCountsForThePrincipalOfItsAgent(t *testing.T) {
	a, ctx, _ := served(t, time.Now().Add(-time.Minute).Truncate(time.Second))
	seen := &told{}
	a.Connections = seen
	a.cfg.Principal = func(method string, selectors []string) string { return method + " " + selectors[0] }
	if _, err := a.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: api.AgentAPI_Issue_FullMethodName}, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if want := (conns.Caller{Agent: "x", Principal: "m m:role:web"}); len(seen.of) != 1 || seen.of[0] != want {
		t.Errorf("%+v, want %+v", seen.of, want)
	}
}

// openStream is a stream of which nothing comes.
type openStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // grpc.ServerStream's own contract
}

func (s openStream) Context() context.Context { return s.ctx }

func TestAStreamEndsWithItsCertificateAndWithTheServer(t *testing.T) {
	for what, c := range map[string]struct {
		end   func(*Access)
		want  codes.Code
		lasts time.Duration
	}{
		"its certificate ends": {func(*Access) {}, codes.Unauthenticated, time.Hour},
		"the server stops":     {(*Access).Close, codes.Unavailable, 0},
		"the agent is banned": {func(a *Access) {
			put(a.cfg.Roster, store.Agent{ID: "x", Group: "g", Banned: true})
			a.review(everythingBound)
		}, codes.PermissionDenied, 0},
		"it was stopped before": {(*Access).Close, codes.Unavailable, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, ctx, _ := served(t, time.Now())
			if what == "it was stopped before" {
				a.Close()
			}
			begun, ended := time.Now(), make(chan error, 1)
			go func() {
				ended <- a.Stream(nil, openStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: api.AgentAPI_Session_FullMethodName}, func(_ any, ss grpc.ServerStream) error {
					<-ss.Context().Done()
					if err := ss.RecvMsg(nil); status.Code(err) != c.want { // its reader is told, too
						t.Errorf("%s: read %v", what, err)
					}
					return nil
				})
			}()
			synctest.Wait()
			c.end(a)
			if err := <-ended; status.Code(err) != c.want || time.Since(begun) != c.lasts {
				t.Errorf("%s: after %s: %v", what, time.Since(begun), err)
			}
			if len(a.open) > 0 {
				t.Errorf("%s: it is kept", what)
			}
		})
	}
}

func TestOfManyRefusalsFewHaveARowAndTheOthersAreANumber(t *testing.T) {
	var rows []string
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	r := NewRefusals(func() time.Time { return now }, func(_ context.Context, actor, action, detail string) {
		rows = append(rows, actor+": "+action+" "+detail)
	})
	from := func(i byte) *Caller { return &Caller{Remote: netip.AddrFrom4([4]byte{192, 0, 2, i})} }
	for range 100 {
		r.Refused(t.Context(), from(1), "attest", "a token that was used\x1b")
	}
	if len(rows) != refusalsPerCaller {
		t.Fatalf("one caller has %d rows", len(rows))
	}
	for i := range byte(100) {
		r.Refused(t.Context(), from(i), "attest", "no token")
	}
	r.Refused(t.Context(), from(1), "issue", "another's entry") // has a budget of its own
	if len(rows) != refusalsNamed+1 || strings.ContainsRune(strings.Join(rows, ""), '\x1b') {
		t.Fatalf("%d rows: %q", len(rows), rows)
	}
	rows = nil
	r.Tell(t.Context())
	if len(rows) != 1 || !strings.HasPrefix(rows[0], "server: attest refused: 190 more like these since ") {
		t.Errorf("%q", rows)
	}
	rows = nil
	if r.Tell(t.Context()); len(rows) > 0 {
		t.Errorf("told again: %q", rows)
	}
	for range 100 { // an agent's word is no more than a stranger's
		r.Reported(t.Context(), "spiffe://test.example/signet/agent/a", "2 resources")
	}
	r.Reported(t.Context(), "spiffe://test.example/signet/agent/b", "1 resource")
	r.Tell(t.Context())
	if n := len(rows); n != refusalsPerCaller+2 || rows[0] != "spiffe://test.example/signet/agent/a: refuse 2 resources" || !strings.HasPrefix(rows[n-1], "server: refuse refused: 97 more like these since ") {
		t.Errorf("%q", rows)
	}
}
