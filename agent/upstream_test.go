package agent

import (
	"log/slog"
	"testing"
	"time"

	"signet.example/ads"
	"signet.example/api"
)

func (r *testRoot) svid(entry, path string) *svid {
	r.t.Helper()
	leaf, key := r.leaf(path)
	s, err := newSVID(entry, [][]byte{leaf.Raw}, key, r.trust(1), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func TestAnIdentityThatIsGrantedNoLongerIsForgotten(t *testing.T) {
	root, log := newTestRoot(t), slog.New(slog.DiscardHandler)
	u := &upstream{enrol: &enrolment{}, keeper: newKeeper(nil, newMetrics(), log), log: log}
	u.enrol.keep(root.trust(1))
	u.keeper.install(root.svid(ownEntry, "/signet/agent/one"))
	for _, path := range []string{"/kept", "/gone"} {
		u.keeper.install(root.svid(path, path))
	}
	u.apply(t.Context(), entrySet(t, &api.Entry{Name: "/kept", SpiffeId: "spiffe://test.example/kept", Selectors: []string{"unix:uid:1"}}), nil)
	if u.keeper.get("/gone") != nil || u.keeper.get("/kept") == nil || u.keeper.get(ownEntry) == nil {
		t.Errorf("held: %v", u.keeper.held.load())
	}
}

func TestTheServersSecretsReachNoProxy(t *testing.T) {
	root := newTestRoot(t)
	secret, err := ads.NewResource(ads.SecretType, "spiffe://other.example", &api.Ban{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := ads.NewSet(secret)
	if err != nil {
		t.Fatal(err)
	}
	s := root.svid("web", "/shop/web")
	v := newProxyView(&leg{}, want{"web", s.id}, nil)
	if err := v.publish(&routing{set: set}, s, root.trust(1)); err != nil {
		t.Fatal(err)
	}
	secrets := v.published.load().Type(ads.SecretType)
	if len(secrets) != 2 || secrets[0].Name != "spiffe://test.example" || secrets[1].Name != s.id.String() {
		t.Errorf("%d secrets", len(secrets))
	}
}
