package issuers_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"signet.example/authz/jwt"
	"signet.example/internal/watched"
	"signet.example/server/issuers"
	"signet.example/test/alb"
)

// balancers are issuers whose keys a region publishes.
func balancers(t *testing.T, r *alb.Region) []jwt.Issuer {
	t.Helper()
	is, err := jwt.ALBSpec{Issuer: alb.Issuer, Clients: []string{alb.Client}, Signers: []string{alb.ARN}, Ingress: []string{"alb"}, KeysURL: r.URL}.Build("front")
	if err != nil {
		t.Fatal(err)
	}
	return []jwt.Issuer{is}
}

func trusted(k *issuers.Keys, list []jwt.Issuer) []string {
	return jwt.ALBKeyIDs(k.Resources(list)[0].GetLoadBalancer().GetJwks())
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestAKeyOfALoadBalancerIsFoundWhenItIsWanted(t *testing.T) {
	first, second := alb.NewKey(t), alb.NewKey(t)
	region := alb.NewRegion(t, first, second)
	list, changed := balancers(t, region), make(chan struct{}, 1)
	known := &watched.Value[issuers.Sets]{}
	k := keysOf(known, func() []jwt.Issuer { return list }, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	running(t, k)
	if r := k.Resources(list)[0]; r.GetName() != "alb/front" || r.GetIssuer() != "" || len(r.GetAudiences()) > 0 || len(r.GetJwks()) > 0 || string(r.GetLoadBalancer().GetJwks()) != `{"keys":[]}` {
		t.Errorf("an agent from before is told of %v", r)
	}
	for range 3 {
		k.Want("agent-1", "alb/front", first.ID)
	}
	await(t, "the key is not there", func() bool { return len(trusted(k, list)) == 1 })
	<-changed
	k.Want("agent-2", "alb/front", second.ID)
	await(t, "the second is not there", func() bool { return len(trusted(k, list)) == 2 })
	if got := trusted(k, list); !slices.Equal(got, []string{first.ID, second.ID}) {
		t.Errorf("trusted: %v", got)
	}
	if it, all := region.Asked(first.ID); it != 1 || all != 2 {
		t.Errorf("asked %d times for one, %d in all", it, all)
	}
	// What is here is not asked for, nor what is no id, nor of whom nobody is.
	for _, w := range [][2]string{{"alb/front", first.ID}, {"alb/front", "../" + first.ID}, {"alb/front", ""}, {"alb/other", alb.NewKey(t).ID}, {"front", alb.NewKey(t).ID}} {
		k.Want("agent-1", w[0], w[1])
	}
	// One of another place vouches for nothing here.
	other := balancers(t, alb.NewRegion(t))
	if got := trusted(k, other); len(got) > 0 {
		t.Errorf("trusted elsewhere: %v", got)
	}
	k.Want("agent-3", "alb/front", alb.NewKey(t).ID) // whose answer shows that those before were not asked for
	await(t, "an unknown key is not asked for", func() bool { _, all := region.Asked(first.ID); return all > 2 })
	if _, all := region.Asked(first.ID); all != 3 {
		t.Errorf("asked %d times", all)
	}
	if len(k.Failing()) > 0 {
		t.Errorf("failing: %v", k.Failing())
	}
}

// Whoever reaches the load balancer may make up ids, and so may an agent that is not ours any more.
func TestMadeUpKeysCostFewFetches(t *testing.T) {
	region := alb.NewRegion(t)
	list := balancers(t, region)
	k := keysOf(&watched.Value[issuers.Sets]{}, func() []jwt.Issuer { return list }, func() {})
	running(t, k)
	begun := time.Now()
	var ids []string
	for range 400 {
		ids = append(ids, alb.NewKey(t).ID)
	}
	for n, id := range ids {
		for range 3 {
			k.Want([]string{"a", "b", "c", "d"}[n%4], "alb/front", id)
		}
	}
	await(t, "none is asked for", func() bool { _, all := region.Asked(""); return all >= 8 })
	time.Sleep(100 * time.Millisecond) // for more that must not come
	_, all := region.Asked("")
	if most := 9 + int(time.Since(begun)/(5*time.Second)); all > most {
		t.Errorf("%d fetches, want at most %d", all, most)
	}
	for _, id := range ids {
		if it, _ := region.Asked(id); it > 1 {
			t.Errorf("%d times the same", it)
		}
	}
}

func TestWhatIsNotAKeyIsNotTrustedAndWhatFailsIsTold(t *testing.T) {
	k1, bad := alb.NewKey(t), alb.NewKey(t)
	region := alb.NewRegion(t, k1)
	region.Publish(bad.ID, []byte("<html>"))
	list := balancers(t, region)
	k := keysOf(&watched.Value[issuers.Sets]{}, func() []jwt.Issuer { return list }, func() {})
	if w := issuers.Warnings(t.Context(), list); len(w) > 0 { // that there is no key of an id is an answer
		t.Errorf("%v", w)
	}
	running(t, k)
	k.Want("a", "alb/front", bad.ID)
	await(t, "not told", func() bool { return k.Failing()["alb/front"].Err != "" })
	region.Fail(500)
	if w := issuers.Warnings(t.Context(), list); len(w) != 1 {
		t.Errorf("%v", w)
	}
	region.Fail(0)
	k.Want("a", "alb/front", k1.ID)
	await(t, "a good one after it", func() bool { return slices.Equal(trusted(k, list), []string{k1.ID}) })
	if f := k.Failing(); len(f) > 0 {
		t.Errorf("%v", f)
	}
}

// A key that is published no more is not trusted any more, and one that cannot be looked at
// is as good as it was.
func TestKeysOfALoadBalancerAreLookedAtAgain(t *testing.T) {
	l, at := issuers.NewLookups(), time.Now()
	for n, c := range []struct {
		err  error
		gone bool
	}{{nil, false}, {context.DeadlineExceeded, false}, {issuers.ErrNoKey, false}, {nil, false}, {issuers.ErrNoKey, false}, {issuers.ErrNoKey, false}, {context.DeadlineExceeded, false}, {issuers.ErrNoKey, true}} {
		if gone := l.Looked("x", true, c.err, at); gone != c.gone {
			t.Errorf("look %d: gone %t", n, gone)
		}
	}
}
