package relay

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// policyWait bounds how long a view waits for the policy revision that it is
// stamped with. After it the view is published all the same: authz denies by an
// unknown revision as unavailable, which fails closed and shows.
const policyWait = 5 * time.Second

// Policies is who decides by the policies that views are stamped with.
type Policies interface {
	// Loaded returns the revisions that are decided by, and a channel that is closed
	// when these are others.
	Loaded() ([]string, <-chan struct{})
	// Stamp notes the revisions that a view needs; none forgets it. by is comparable.
	Stamp(by any, revisions []string)
}

// subscriptionKey names one stream from the server: a virtual node and the shape of the
// proxies that it is for.
type subscriptionKey struct {
	ref   proxy.Ref
	shape proxy.Shape
}

// routing is a complete routing set of a virtual node, released to proxies.
type routing struct {
	set      *ads.Set
	revision string
	version  string            // of the View resource that closed it
	files    []string          // the names of secrets that are made of files of this host
	services map[string]string // their addresses, by their names in lower case
}

// subscription follows one virtual node's view and releases its sets, each when the authz
// process has loaded the policy that it is stamped with (D3).
type subscription struct {
	key  subscriptionKey
	pool *ads.Pool // shared by all subscriptions
	log  *slog.Logger
	// policies is told the revisions that this subscription's sets need: the newest one before
	// it is released.
	policies Policies

	// served is told of each set that was released.
	served func()
	// gone is closed when no view is left.
	gone chan struct{}

	pending watched.Value[*routing]
	// released is nil until the first complete set.
	released watched.Value[*routing]
}

func (l *subscription) nodeID() string { return l.key.ref.String() }

// Run follows the view over conn until l is gone or ctx ends.
func (l *subscription) Run(ctx context.Context, conn grpc.ClientConnInterface) {
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { l.release(ctx) })
	wg.Go(func() {
		client := &ads.Client{
			Conn:     conn,
			Node:     &corev3.Node{Id: l.nodeID(), Cluster: l.key.ref.Name, UserAgentName: "signet-agent", Metadata: l.key.shape.Metadata()},
			Types:    []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType},
			Complete: resources.Complete,
			OnSet: func(set *ads.Set, view *ads.Resource) {
				var v api.View
				if err := proto.Unmarshal(view.Body, &v); err != nil {
					l.log.ErrorContext(ctx, "view not readable", slog.String("node", l.nodeID()), slog.Any("err", err))
					return
				}
				l.pending.Set(&routing{set: set, revision: v.GetPolicyRevision(), version: view.Version, files: v.GetTlsFiles(), services: v.GetAddresses()})
			},
			Pool: l.pool,
			Log:  l.log,
		}
		_ = resources.Follow(ctx, client, l.log) // it ends with ctx only
	})
	select {
	case <-l.gone:
	case <-ctx.Done():
	}
	end()
	wg.Wait()
	l.policies.Stamp(l, nil)
}

// release passes each pending set on when its policy is loaded.
func (l *subscription) release(ctx context.Context) {
	var done *routing
	for {
		next, err := l.pending.Wait(ctx, func(r *routing) bool { return r != done && r != nil })
		if err != nil {
			return
		}
		// The set before this one is still what requests are stamped with until
		// every proxy has taken the new one.
		l.policies.Stamp(l, revisionsOf(done, next))
		if !l.awaitPolicy(ctx, next) {
			if ctx.Err() != nil {
				return // the one that is pending stays so: it would be looked at without end
			}
			continue // a newer one is there
		}
		l.released.Set(next)
		l.served()
		done = next
	}
}

// awaitPolicy waits until next may be released; false where it is out of date.
func (l *subscription) awaitPolicy(ctx context.Context, next *routing) bool {
	timer := time.NewTimer(policyWait)
	defer timer.Stop()
	for {
		pending, newer := l.pending.Get()
		if pending != next {
			return false
		}
		loaded, changed := l.policies.Loaded()
		if next.revision == "" || slices.Contains(loaded, next.revision) {
			return true
		}
		select {
		case <-changed:
		case <-newer:
		case <-timer.C:
			l.log.WarnContext(ctx, "policy revision not loaded in time, routing goes on: requests are denied as unavailable",
				slog.String("node", l.nodeID()), slog.String("policy_rev", next.revision))
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func revisionsOf(rs ...*routing) []string {
	var ids []string
	for _, r := range rs {
		if r != nil && r.revision != "" {
			ids = append(ids, r.revision)
		}
	}
	return ids
}
