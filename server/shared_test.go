package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/server"
	"signet.example/server/fault"
)

// newPair runs two servers over one store and one fake of what they share.
func newPair(t *testing.T) (one, two *rig) {
	t.Helper()
	one = newRigWith(t, func(ctx context.Context, cfg server.Config, log *slog.Logger) error {
		other := cfg
		other.DataDir, other.Name, other.AdminSocket, other.Metrics = filepath.Join(filepath.Dir(cfg.DataDir), "two"), "server-2", "", ""
		return server.RunTwoInProcess(ctx, [2]server.Config{cfg, other}, log, opened)
	})
	two = &rig{t: t, cfg: one.cfg}
	two.cfg.DataDir = filepath.Join(filepath.Dir(one.cfg.DataDir), "two")
	two.reach(nil)
	t.Cleanup(func() { _ = two.conn.Close() })
	return one, two
}

// at is the same run of an agent, connected to another server.
func (h *host) at(r *rig) *host {
	other := *h
	other.rig = r
	other.conn = dial(h.t, r.addr.Agents, h.svid, nil, grpc.WithPerRPCCredentials(h.instance))
	return &other
}

func TestTwoServersOverOneFakeOfTheSharedStateAgree(t *testing.T) {
	one, two := newPair(t)
	one.apply(registry + shop)

	// What is applied at one is followed, served and read at the other.
	web := one.join("front").at(two).follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	web.await("the mesh that was applied at the other server", func(s *ads.Set, _ *api.View) bool {
		return len(namesOf(s, ads.ClusterType)) > 0
	})
	if got, err := two.admin.Get(t.Context(), &api.GetRequest{}); err != nil || len(got.GetObjects()) == 0 {
		t.Errorf("%v, %v", got, err)
	}

	// Who joined at one is an agent at the other at once, and its endpoints are served by both.
	orders := one.join("back")
	report, before := orders.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	web.await("an endpoint that was reported to the other server", func(s *ads.Set, _ *api.View) bool {
		return slices.Contains(addresses(s), "127.0.0.10:8080")
	})

	// It is connected to one of them.
	moved := orders.at(two)
	report, session := moved.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8080))
	var err error
	for err == nil { // what it was told before comes first
		_, err = before.Recv()
	}
	wantCode(t, err, codes.Unavailable, "newer session")
	for name, r := range map[string]*rig{"one": one, "two": two} {
		eventually(t, "one session, as server "+name+" has it", func() bool { return slices.Equal(connected(t, r), []string{orders.id}) })
	}

	// Another run of it, as of a copy, gets in nowhere.
	told := answering(session)
	for name, r := range map[string]*rig{"one": one, "two": two} {
		thief := newHost(r)
		thief.hostKey = orders.hostKey
		wantCode(t, thief.attest(""), codes.FailedPrecondition, "connected already")
		<-told
		if f := awaitFinding(t, r, "SIG020", "127.0.0.1"); !strings.Contains(f.GetSubject(), orders.id) {
			t.Errorf("server %s has %v", name, f)
		}
	}

	// A ban at one ends what the agent has at the other.
	one.ban(orders.id)
	if _, err := moved.issue("secret"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("after the ban, at the other server: %v", err)
	}
	eventually(t, "its session has ended", func() bool { return len(connected(t, two)) == 0 })
	web.await("its endpoint is gone", func(s *ads.Set, _ *api.View) bool { return !slices.Contains(addresses(s), "127.0.0.10:8080") })
}

func TestWritesAtTwoServersAreCheckedAgainstEachOther(t *testing.T) {
	one, two := newPair(t)
	one.apply(registry)
	group := func(n int) string {
		return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: g%d}\nspec: {}\n", n)
	}
	entry := func(n int) string {
		return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: e%d}\nspec: {group: g%d, spiffeID: \"spiffe://test.example/e/%d\", selectors: [\"unix:uid:1\"]}\n", n, n, n)
	}
	for n := range 10 {
		one.apply(group(n))
		var both sync.WaitGroup
		var added, deleted error
		both.Go(func() { _, added = two.tryApply(entry(n)) })
		both.Go(func() {
			_, deleted = one.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "nodegroup", Name: fmt.Sprintf("g%d", n)})
		})
		both.Wait()
		if (added == nil) == (deleted == nil) {
			t.Errorf("the entry: %v; its group's deletion: %v", added, deleted)
		}
	}
	// A lock that is lost, as with a connection to a database, is no way round the check.
	err := server.ApplyAfter(t.Context(), group(100), func() {
		if err := server.Write(t.Context(), "NodeGroup", "g101", []byte(group(101))); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "objects changed in revision") || !strings.Contains(err.Error(), "apply again") {
		t.Errorf("a write that was overtaken: %v", err)
	}
}

// answering has a session answer probes, and returns the addresses that it was told of.
func answering(session api.AgentAPI_SessionClient) <-chan string {
	told := make(chan string, 16)
	go func() {
		for {
			m, err := session.Recv()
			if err != nil {
				return
			}
			if p := m.GetProbe(); p != nil {
				_ = session.Send(&api.SessionUp{Message: &api.SessionUp_Alive{Alive: p.GetNonce()}})
				select {
				case told <- p.GetRemote():
				default: // nobody reads any more
				}
			}
		}
	}()
	return told
}
