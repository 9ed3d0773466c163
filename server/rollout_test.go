package server_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/server"
	"signet.example/store"
	"signet.example/xds"
)

// replica is an agent with a proxy of web.
type replica struct {
	*host
	*follower

	report func(*api.Report)
}

// replicaOf follows web at an address, and says that its proxy has what it was sent.
func replicaOf(r *rig, bind string) *replica {
	r.t.Helper()
	h := r.join("front")
	report, session := h.session()
	go func() {
		for {
			if _, err := session.Recv(); err != nil {
				return
			}
		}
	}()
	x := &replica{h, h.follow(nodeOf("shop", "web", bind), envoyTypes), report}
	x.await("its view", func(*ads.Set, *api.View) bool { return true })
	x.answers(1)
	return x
}

// answersAs reports a rejection by a version of Envoy.
func (x *replica) answersAs(envoy string, rejected *api.ResourceStatus) {
	x.mu.Lock()
	version := x.last
	x.mu.Unlock()
	x.report(&api.Report{Views: []*api.ViewStatus{{
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}, Version: version, Proxies: 1, Rejected: []*api.ResourceStatus{rejected}, EnvoyVersion: envoy,
	}}})
}

// answers reports that so many proxies have answered what is there, and rejected some of it.
func (x *replica) answers(proxies int32, rejected ...*api.ResourceStatus) {
	x.mu.Lock()
	version := x.last
	x.mu.Unlock()
	web := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	x.report(&api.Report{
		Proxies: []*api.ProxyStatus{{Name: "web", VirtualNode: web, EnvoyVersion: "1.40.0", State: api.ProxyStatus_READY.Enum(), Config: api.ProxyStatus_SYNCED.Enum(), Rejected: rejected}},
		Views:   []*api.ViewStatus{{VirtualNode: web, Version: version, Proxies: proxies, Rejected: rejected, EnvoyVersion: "1.40.0"}},
	})
}

// minds has the replica's proxy answer by itself until stop is called: it refuses what has orders at bad.
func (x *replica) minds(bad string) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for last := ""; ; {
			select {
			case <-ended:
				return
			case <-time.After(2 * time.Millisecond):
			}
			x.mu.Lock()
			now := x.last
			x.mu.Unlock()
			switch {
			case now == last:
			case x.calls() == bad:
				x.answers(1, x.refuses())
			default:
				x.answers(1)
			}
			last = now
		}
	}()
	stop = sync.OnceFunc(func() { close(ended); <-done })
	x.host.t.Cleanup(stop)
	return stop
}

// calls is where the replica's proxy finds orders.
func (x *replica) calls() string {
	s, _ := x.now()
	for _, r := range s.Type(ads.ClusterType) {
		var c clusterv3.Cluster
		if proto.Unmarshal(r.Body, &c) == nil && strings.Contains(r.Name, "orders") {
			return c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
		}
	}
	return ""
}

// refuses is the rejection of the cluster of orders.
func (x *replica) refuses() *api.ResourceStatus {
	s, _ := x.now()
	for _, r := range s.Type(ads.ClusterType) {
		if strings.Contains(r.Name, "orders") {
			return &api.ResourceStatus{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: "Envoy says no"}
		}
	}
	return nil
}

// moves has orders somewhere else.
func (r *rig) moves(to string) {
	r.t.Helper()
	r.apply(strings.Replace("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: orders}\nspec:\n  listeners:\n    - portMapping: {port: 8080, protocol: http}\n  serviceDiscovery:\n    dns: {hostname: HOST}\n", "HOST", to, 1))
}

// firstOf is the one of replicas that has a change, and the others.
func firstOf(t *testing.T, all []*replica, at string) (has *replica, others []*replica) {
	t.Helper()
	having := func() (n int) {
		for _, x := range all {
			if x.calls() == at {
				n++
			}
		}
		return n
	}
	eventually(t, "one has the change", func() bool { return having() > 0 })
	time.Sleep(100 * time.Millisecond) // whoever else had it would have it now
	for _, x := range all {
		if x.calls() == at {
			has = x
		} else {
			others = append(others, x)
		}
	}
	if len(others) != len(all)-1 {
		t.Fatalf("%d of %d have %s", len(all)-len(others), len(all), at)
	}
	return has, others
}

func everyone(t *testing.T, all []*replica, at string) {
	t.Helper()
	for _, x := range all {
		x.await(at+" everywhere", func(*ads.Set, *api.View) bool { return x.calls() == at })
	}
}

func TestAChangeIsTakenByOneHostBeforeTheOthersHaveItAndWhatAllRefuseIsWithheld(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	all := []*replica{replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.8")}
	answer := func() {
		for _, x := range all {
			x.answers(1)
		}
	}
	time.Sleep(50 * time.Millisecond) // what they said is heard
	r.moves("good.internal")
	has, _ := firstOf(t, all, "good.internal")
	has.answers(1)
	everyone(t, all, "good.internal")
	answer()

	r.moves("bad.internal")
	has, others := firstOf(t, all, "bad.internal")
	refused := has.refuses()
	has.answers(1, refused)
	second, _ := firstOf(t, others, "bad.internal") // the first one's word is not the others'
	second.answers(1, refused)
	for _, x := range all {
		x.minds("bad.internal")
	}
	everyone(t, all, "good.internal")
	r.awaitFound("SIG004", "error", "proxy web")
	agents, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range others {
		found := false
		for _, a := range agents.GetAgents() {
			for _, j := range a.GetReport().GetProxies()[0].GetRejected() {
				found = found || a.GetId() == x.id && j.GetVersion() == refused.GetVersion() && strings.Contains(j.GetMessage(), "Envoy says no")
			}
		}
		if !found {
			t.Errorf("of %s it is not said what is withheld", x.id)
		}
	}
	late := replicaOf(r, "127.0.0.7")
	if at := late.calls(); at != "good.internal" {
		t.Errorf("who comes later is sent to %s", at)
	}
	late.await("what others refused, once it runs", func(*ads.Set, *api.View) bool { return late.calls() == "bad.internal" })
	late.minds("bad.internal")
	all = append(all, late)
	everyone(t, all, "good.internal")
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {egressFilter: {type: ALLOW_ALL}}\n") // makes all views again
	time.Sleep(100 * time.Millisecond)
	everyone(t, all, "good.internal")

	r.moves("mended.internal")
	everyone(t, all, "mended.internal")
	r.awaitMended("SIG004", "proxy web")
	trail, err := server.AuditTrail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(trail, func(row store.AuditRow) bool {
		return row.Action == "refuse" && strings.Contains(row.Detail, "Envoy says no")
	}) {
		t.Error("the refusal is not in the audit trail")
	}
}

func TestAHostThatSaysNothingOrWhoseProxiesEndDoesNotAnswerForTheOthers(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	all := []*replica{replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.8")}
	time.Sleep(50 * time.Millisecond)
	begun := time.Now()
	r.moves("slow.internal")
	mute, _ := firstOf(t, all, "slow.internal")
	everyone(t, all, "slow.internal")
	if took := time.Since(begun); took < time.Second || took > 3*time.Second {
		t.Errorf("the others had it after %s, want a second", took)
	}
	for _, x := range all {
		x.answers(1)
	}
	time.Sleep(50 * time.Millisecond)
	_ = mute
	r.moves("deadly.internal")
	first, others := firstOf(t, all, "deadly.internal")
	first.answers(0)
	second, rest := firstOf(t, others, "deadly.internal")
	second.answers(0)
	everyone(t, []*replica{first, second}, "slow.internal") // that is withheld from now on
	if at := rest[0].calls(); at != "slow.internal" {
		t.Errorf("the last is sent to %s", at)
	}
}

// Neither for a node that is not its own, nor for what no view has.
func TestAHostRefusesForItsOwnNodesOnly(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	x := replicaOf(r, "127.0.0.9")
	liar := r.join("back")
	report, _ := liar.session()
	report(&api.Report{Views: []*api.ViewStatus{{
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}, Version: x.last, Proxies: 1, EnvoyVersion: "1.40.0", Rejected: []*api.ResourceStatus{x.refuses()},
	}}})
	none := x.refuses()
	none.Version = "0000000000000000"
	x.answers(1, none)
	time.Sleep(100 * time.Millisecond)
	r.moves("next.internal")
	everyone(t, []*replica{x}, "next.internal")
	r.awaitMended("SIG004", "another")
}

func TestWhatWasRefusedIsWithheldByAServerThatRestarted(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	a := replicaOf(r, "127.0.0.9")
	time.Sleep(50 * time.Millisecond) // what it said is heard
	r.moves("bad.internal")
	everyone(t, []*replica{a}, "bad.internal")
	a.answers(1, a.refuses())
	everyone(t, []*replica{a}, "orders.internal")
	r.halt()
	r.start()
	var all []*replica
	for _, bind := range []string{"127.0.0.9", "127.0.0.8"} { // the second in a shape of its own
		x := replicaOf(r, bind)
		if at := x.calls(); at != "orders.internal" {
			t.Errorf("after the restart it is sent to %s", at)
		}
		x.minds("bad.internal")
		all = append(all, x)
	}
	everyone(t, all, "orders.internal")
	r.awaitFound("SIG004", "error", "Envoy says no")
	time.Sleep(50 * time.Millisecond)
	r.moves("mended.internal")
	everyone(t, all, "mended.internal")
}

// What one host cannot have, its port being taken, another has; and what proxies run is not
// taken away since one refuses it later, or says so.
func TestARefusalTakesNothingAwayFromThoseWhoRunIt(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	all := []*replica{replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.8")}
	time.Sleep(50 * time.Millisecond) // what they said is heard
	r.moves("good.internal")
	has, others := firstOf(t, all, "good.internal")
	taken := has.refuses()
	taken.Message = "cannot bind '127.0.0.1:15001': Address already in use"
	has.answers(1, taken)
	everyone(t, all, "good.internal")
	for _, x := range others {
		x.answers(1)
	}
	time.Sleep(100 * time.Millisecond)
	r.moves("better.internal")
	has, others = firstOf(t, all, "better.internal")
	has.answersAs("9.9.9", has.refuses()) // its proxy is of no such version
	has.answers(1)
	everyone(t, all, "better.internal")
	for _, x := range others {
		x.answers(1)
	}
	time.Sleep(100 * time.Millisecond)
	for _, x := range all[:2] { // two of them, who need no right for it
		x.answers(1, x.refuses())
	}
	time.Sleep(100 * time.Millisecond)
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {egressFilter: {type: ALLOW_ALL}}\n") // makes all views again
	time.Sleep(300 * time.Millisecond)
	for _, x := range all {
		if at := x.calls(); at != "better.internal" {
			t.Errorf("of %s what it ran is gone: %q", x.id, at)
		}
	}
	late := replicaOf(r, "127.0.0.7")
	if at := late.calls(); at != "better.internal" {
		t.Errorf("who comes later is sent to %q", at)
	}
}

// rejects is what a replica says that refuses all of a type.
func (x *replica) rejects(typeURL string) (list []*api.ResourceStatus) {
	s, _ := x.now()
	for _, r := range s.Type(typeURL) {
		list = append(list, &api.ResourceStatus{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: "Envoy says no"})
	}
	return list
}

// What makes something stricter is a change like another: whoever refuses it keeps it from nobody,
// be it that the others take it, say nothing, or that it leaves.
func TestAHostThatLiesKeepsNothingFromThoseWhoTakeIt(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	liars := []*replica{replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9")}
	for _, x := range liars {
		x.minds("next.internal")
	}
	honest := replicaOf(r, "127.0.0.9")
	stop := honest.minds("none")
	time.Sleep(50 * time.Millisecond) // what they said is heard
	r.moves("next.internal")
	everyone(t, []*replica{honest}, "next.internal")
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {egressFilter: {type: ALLOW_ALL}}\n") // makes all views again
	for _, x := range liars {
		x.answers(1, x.rejects(ads.ClusterType)...)
	}
	time.Sleep(200 * time.Millisecond)
	if at := honest.calls(); at != "next.internal" {
		t.Errorf("what it runs was taken away: it is sent to %s", at)
	}
	if at := replicaOf(r, "127.0.0.7").calls(); at != "next.internal" {
		t.Errorf("who comes later is sent to %s", at)
	}
	stop()
	r.moves("last.internal")
	eventually(t, "a liar refuses", func() bool {
		for _, x := range liars {
			if x.calls() == "last.internal" {
				x.answers(1, x.refuses())
			}
		}
		return honest.calls() == "last.internal" // which answers nothing
	})
}

func TestAPolicyIsInForceWhateverAHostRefuses(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	p := newRepo(t)
	p.commit(map[string]string{"main.rego": allowAll})
	r.apply(p.source())
	first := r.sync().GetRevision()
	honest, liar := replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9")
	for _, x := range []*replica{honest, liar} {
		x.await("the policy", func(_ *ads.Set, v *api.View) bool { return v.GetPolicyRevision() == first })
		x.answers(1)
	}
	stamps := func() (stamps []string) {
		s, _ := honest.now()
		for _, rc := range s.Type(ads.RouteType) {
			for _, revision := range []string{first, r.sync().GetRevision()} {
				if bytes.Contains(rc.Body, []byte(revision)) {
					stamps = append(stamps, revision)
				}
			}
		}
		return slices.Compact(stamps)
	}
	time.Sleep(50 * time.Millisecond) // what they said is heard
	if got := stamps(); !slices.Equal(got, []string{first}) {
		t.Fatalf("its routes are under %q", got)
	}
	p.commit(map[string]string{"main.rego": "package signet.authz\n\nimport rego.v1\n\nallow contains \"nobody\" if false\n"})
	second := r.sync().GetRevision()
	liar.await("the next policy", func(_ *ads.Set, v *api.View) bool { return v.GetPolicyRevision() == second })
	liar.answers(1, liar.rejects(ads.RouteType)...)
	time.Sleep(300 * time.Millisecond)
	if got := stamps(); !slices.Equal(got, []string{second}) {
		t.Errorf("its routes are under %q, and everything was forbidden by %q", got, second)
	}
}

func TestNobodyIsSentToABannedHostWhateverAHostRefuses(t *testing.T) {
	r := newRig(t)
	r.apply(registry + strings.Replace(shop, "  serviceDiscovery:\n    dns: {hostname: orders.internal}\n", "", 1))
	honest, liar := replicaOf(r, "127.0.0.9"), replicaOf(r, "127.0.0.9")
	bad := r.join("back")
	report, _ := bad.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.1", 8080))
	sentTo := func(x *replica) int { s, _ := x.now(); return len(addresses(s)) }
	for _, x := range []*replica{honest, liar} {
		x.await("the endpoint", func(*ads.Set, *api.View) bool { return sentTo(x) == 1 })
		x.answers(1)
	}
	time.Sleep(50 * time.Millisecond) // what they said is heard
	r.ban(bad.id)
	liar.await("that it is gone", func(*ads.Set, *api.View) bool { return sentTo(liar) == 0 })
	liar.answers(1, slices.Concat(liar.rejects(ads.EndpointType), liar.rejects(ads.ClusterType), liar.rejects(ads.ListenerType))...)
	time.Sleep(300 * time.Millisecond)
	if n := sentTo(honest); n != 0 {
		t.Errorf("it is sent to %d", n)
	}
}

// What proxies truly refuse, they keep the old of: under each new policy, and without calls to
// who is gone.
func TestWhatIsKeptInThePlaceOfWhatWasRefusedIsOfToday(t *testing.T) {
	r := newRig(t)
	r.apply(registry + strings.Replace(shop, "  serviceDiscovery:\n    dns: {hostname: orders.internal}\n", "", 1))
	x := replicaOf(r, "127.0.0.9")
	other := r.join("back")
	report, _ := other.session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.1", 8080))
	sentTo := func(n int) func(*ads.Set, *api.View) bool {
		return func(s *ads.Set, _ *api.View) bool { return len(addresses(s)) == n }
	}
	x.await("the endpoint", sentTo(1))
	x.answers(1)
	time.Sleep(50 * time.Millisecond) // what it said is heard
	inbound := func() *ads.Resource { s, _ := x.now(); return s.Get(ads.RouteType, "rds_ingress_http_8080") }
	old := inbound()
	web, _, _ := strings.Cut(shop[strings.Index(shop, "kind: VirtualNode"):], "  backends:")
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\n" + strings.Replace(web, "protocol: http}", "protocol: http}\n      timeout: {http: {perRequest: {unit: s, value: 5}}}", 1))
	x.await("the change", sentTo(0))
	x.answers(1, x.rejects(ads.RouteType)...)
	x.await("what it had", sentTo(1))
	if is := inbound(); is.Version != old.Version {
		t.Errorf("its inbound route is %s, was %s", is.Version, old.Version)
	}
	x.answers(1)
	p := newRepo(t)
	p.commit(map[string]string{"main.rego": allowAll})
	r.apply(p.source())
	revision := r.sync().GetRevision()
	x.await("what it had, under the new policy", func(*ads.Set, *api.View) bool {
		want, err := xds.Stamped(old, revision)
		return err == nil && inbound().Version == want.Version
	})
	r.ban(other.id)
	x.await("that who is banned is gone", sentTo(0))
}
