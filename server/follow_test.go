package server_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/server"
)

// db opens the server's database beside the server, and waits for what the server writes, as the server waits.
func (r *rig) db() *sql.DB {
	r.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(r.cfg.DataDir, "store.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = db.Close() })
	return db
}

func (r *rig) exec(statement string, args ...any) {
	r.t.Helper()
	if _, err := r.db().ExecContext(r.t.Context(), statement, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) noneStale(when string) {
	r.t.Helper()
	if stale, err := server.Stale(); err != nil || len(stale) != 0 {
		r.t.Errorf("%s: views %v are not what they would be if built now, %v", when, stale, err)
	}
}

func TestWhenApplyReturnsTheViewsHaveTheChange(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	f.await("a view", func(s *ads.Set, _ *api.View) bool { return s.Get(ads.RouteType, "rds_egress_http_15001") != nil })
	for _, manifests := range []string{
		strings.Replace(shop, "port: 8080, protocol: http}\n  serviceDiscovery", "port: 8081, protocol: http}\n  serviceDiscovery", 1),
		strings.Replace(shop, "metadata: {name: shop}\nspec: {}", "metadata: {name: shop}\nspec: {meshServiceDiscovery: {ipPreference: IPv4_ONLY}}", 1),
		"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: more}\nspec: {group: back, mesh: shop, virtualNode: orders, selectors: [\"unix:uid:9\"]}\n",
		shop,
	} {
		if resp := r.apply(manifests); resp.GetRevision() == 0 {
			t.Error("no revision")
		}
		r.noneStale("after an apply")
	}
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "binding", Name: "orders"}); err != nil {
		t.Fatal(err)
	}
	r.noneStale("after a deletion")
}

func TestWhatChangesBetweenTheTrialAndTheWriteIsServedToo(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	back := r.join("back")
	report, _ := back.session()
	f.await("a view", func(*ads.Set, *api.View) bool { return true })
	onPort := func(port string) string {
		return strings.Replace(shop, "port: 8080, protocol: http}\n  serviceDiscovery", "port: "+port+", protocol: http}\n  serviceDiscovery", 1)
	}
	for name, c := range map[string]struct {
		manifests string
		between   func()
	}{
		"an endpoint": {onPort("8081"), func() {
			report(proxyReport("orders", "shop", "orders", "127.0.0.10", 8081))
			eventually(t, "the endpoint", func() bool { return server.Endpoints() == 1 })
		}},
		"a revision that is not of the mesh": {onPort("8082"), func() {
			if err := server.BanInStore(t.Context(), r.join("back").id); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		if err := server.ApplyAfter(t.Context(), c.manifests, c.between); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, name, func() bool {
			stale, err := server.Stale()
			return err == nil && len(stale) == 0
		})
	}
}

func TestViewsAreNeverStaleWhateverChangesAtOnce(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	f := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	report, _ := r.join("back").session()
	banned := r.join("back").id
	f.await("a view", func(*ads.Set, *api.View) bool { return true })
	const rounds = 15
	seen := make(chan uint64, 3*rounds)
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range rounds {
				// The probe is in the policy revision, too: that changes beside the mesh.
				node := fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: orders}\nspec:\n  listeners:\n    - portMapping: {port: 8080, protocol: http}\n"+
					"      healthCheck: {protocol: http, path: /%d-%d, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}\n  serviceDiscovery: {dns: {hostname: orders.internal}}\n", w, i)
				resp, err := r.tryApply(node)
				if err != nil {
					t.Error(err)
					return
				}
				seen <- resp.GetRevision()
			}
		})
	}
	wg.Go(func() {
		for i := range rounds {
			report(proxyReport("orders", "shop", "orders", fmt.Sprintf("127.0.0.%d", 10+i), 8080))
			if err := server.BanInStore(t.Context(), banned); err != nil { // a revision that is not of the mesh
				t.Error(err)
			}
		}
	})
	wg.Wait()
	close(seen)
	given := map[uint64]bool{}
	for n := range seen {
		if given[n] {
			t.Errorf("two applies had revision %d", n)
		}
		given[n] = true
	}
	eventually(t, "nothing is stale", func() bool {
		stale, err := server.Stale()
		return err == nil && len(stale) == 0
	})
}

func TestAnApplyThatCannotBeAuditedChangesNothing(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	before := r.apply(registry).GetRevision()
	r.exec(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END`)
	_, err := r.tryApply(shop)
	wantCode(t, err, codes.Unavailable, "write to the store", "no room")
	_, err = r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "entry", Name: "job"})
	wantCode(t, err, codes.Unavailable, "no room", "nothing was done")
	_, err = r.admin.Explain(t.Context(), &api.ExplainRequest{Id: "x"}) // what is read counts, too
	wantCode(t, err, codes.Unavailable, "nothing was done")
	certs, err := r.admin.Certs(t.Context(), &api.CertsRequest{})
	if err == nil {
		_, err = certs.Recv()
	}
	wantCode(t, err, codes.Unavailable, "nothing was done")
	r.exec(`DROP TRIGGER full`)
	got, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil || len(got.GetObjects()) != 4 {
		t.Errorf("%d objects, %v", len(got.GetObjects()), err)
	}
	if next := r.apply(shop).GetRevision(); next <= before {
		t.Errorf("revision %d after %d", next, before)
	}
}

func TestAnApplyToAStoreThatIsHeldUpEndsWithItsDeadlineAndChangesNothing(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	db := r.db()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := r.admin.Apply(ctx, &api.ApplyRequest{Sources: []*api.Source{{File: "a.yaml", Content: []byte(shop)}}})
	wantCode(t, err, codes.DeadlineExceeded)
	if _, err := db.ExecContext(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	r.apply(registry) // waits for the one before to end
	got, err := r.admin.Get(t.Context(), &api.GetRequest{})
	if err != nil || len(got.GetObjects()) != 4 {
		t.Errorf("%d objects, %v", len(got.GetObjects()), err)
	}
}

func TestWhatTheStoreCouldNotBeReadForIsReadAgain(t *testing.T) {
	r := newRig(t)
	const good = "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: late}\nspec: {}\n"
	if err := server.Write(t.Context(), "NodeGroup", "late", []byte("not a manifest")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has looked", func() bool {
		_, err := r.admin.Get(t.Context(), &api.GetRequest{})
		return err != nil
	})
	r.exec(`UPDATE objects SET manifest = ?1 WHERE name = 'late'`, []byte(good))
	r.exec(`UPDATE changes SET manifest = ?1 WHERE name = 'late'`, []byte(good))
	eventually(t, "the group is known", func() bool {
		_, err := r.admin.CreateToken(t.Context(), &api.CreateTokenRequest{Group: "late"})
		return err == nil
	})
}

func TestEveryApplyAndDeleteIsInTheAuditTrail(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	r.apply(registry) // nothing changes
	_, err := r.admin.Apply(t.Context(), &api.ApplyRequest{DryRun: true, Sources: []*api.Source{{File: "dry.yaml", Content: []byte(shop)}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.tryApply("kind: nonsense")
	wantCode(t, err, codes.InvalidArgument)
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "entry", Name: "job"}); err != nil {
		t.Fatal(err)
	}
	rows, err := server.AuditTrail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		if strings.HasPrefix(row.Actor, "uid ") {
			got = append(got, row.Action+" "+row.Detail)
		}
	}
	for i, want := range []string{
		`apply dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=false files=["test.yaml"] owner="": put "NodeGroup" ""/"front"; put`,
		`Apply dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=false files=["test.yaml"] owner=""`,
		`Apply dry_run=true skip_foreign=false effect=false prune=false take_over=false concerned=false files=["dry.yaml"] owner=""`,
		`Apply dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=false files=["test.yaml"] owner="" failed: InvalidArgument`,
		`Delete dry_run=false concerned=false kind="entry" mesh="" name="job"`,
		`apply dry_run=false concerned=false kind="entry" mesh="" name="job": delete "Entry" ""/"job"`,
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("row %d of %q does not begin with %q", i, got, want)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d rows: %q", len(got), got)
	}
}
