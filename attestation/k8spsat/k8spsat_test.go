package k8spsat_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/attestation/k8spsat"
	"signet.example/attestation/platform"
	"signet.example/test/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	forUs = "signet:test.example"
	uid   = "4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"
)

var web = parts.Pod{Namespace: "shop", ServiceAccount: "web", Name: "web-5d4f8", UID: uid}

// read reads tokens and trusts them; what a token's form, signature and times are held to is
// tested where that is done (server/issuers, authz/jwt, server).
type read struct {
	used  map[string]bool
	took  []string
	asked string // the audience
	err   error  // of the quota
}

func (r *read) Verify(_ []platform.Issuer, text, audience string, _ time.Time) (platform.Token, error) {
	r.asked = audience
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		return platform.Token{}, err
	}
	var claims struct {
		Issuer   string   `json:"iss"`
		Subject  string   `json:"sub"`
		Audience []string `json:"aud"`
		Issued   int64    `json:"iat"`
		Expires  int64    `json:"exp"`
	}
	t := platform.Token{}
	if err := errors.Join(json.Unmarshal(payload, &claims), json.Unmarshal(payload, &t.Claims)); err != nil {
		return t, err
	}
	t.Issuer, t.Subject, t.Audience, t.Expires = claims.Issuer, claims.Subject, claims.Audience, time.Unix(claims.Expires, 0)
	if claims.Issued != 0 {
		t.Issued = time.Unix(claims.Issued, 0)
	}
	return t, nil
}

func (r *read) Used(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	return r.used[string(hash)], nil
}

func (r *read) UseOnce(_ context.Context, hash []byte, _, _ time.Time) (bool, error) {
	first := !r.used[string(hash)]
	r.used[string(hash)] = true
	return first, nil
}

func (r *read) Take(principal string, _ []byte) error {
	r.took = append(r.took, principal)
	return r.err
}

func clusterOf(c *parts.Cluster) k8spsat.Cluster {
	return k8spsat.Cluster{Name: "prod", Issuer: c.Issuer(), KeysURL: c.KeysURL(), ServiceAccounts: []string{"shop/web", "shop/orders"}}
}

func verifier(t *testing.T, clusters ...k8spsat.Cluster) (*k8spsat.Verifier, *read) {
	t.Helper()
	r := &read{used: map[string]bool{}}
	v, err := k8spsat.Config{Clusters: clusters}.Open(platform.Server{Tokens: r, Once: r, Quota: r, Group: func([]string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return v, r
}

func TestAPodIsWhatItsClusterSays(t *testing.T) {
	c := parts.NewCluster(t)
	v, r := verifier(t, clusterOf(c))
	sels, key, err := v.Verify(t.Context(), c.Sign(c.Claims(web, forUs)), "test.example", time.Now())
	want := []string{
		"k8s_psat:cluster:prod", "k8s_psat:namespace:prod/shop", "k8s_psat:service_account:prod/shop/web",
		"k8s_psat:pod:prod/shop/web-5d4f8", "k8s_psat:pod_uid:prod/" + uid, "k8s_psat:node:prod/node-1",
	}
	if err != nil || !slices.Equal(sels.Strings(), want) || r.asked != forUs || !slices.Equal(r.took, want[2:3]) {
		t.Errorf("%v, %v; it is for %s, and took of %v", sels, err, r.asked, r.took)
	}
	next, same, err := v.Verify(t.Context(), c.Sign(c.Claims(web, forUs)), "test.example", time.Now())
	if err != nil || string(same) != string(key) {
		t.Errorf("by its next token it is another pod: %v, %v", next, err)
	}
	other := web
	other.UID = "5f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"
	if _, another, err := v.Verify(t.Context(), c.Sign(c.Claims(other, forUs)), "test.example", time.Now()); err != nil || string(another) == string(key) {
		t.Errorf("another pod of its name is the same one: %v", err)
	}
	claims := c.Claims(web, forUs)                           // of a cluster that says nothing of nodes
	delete(claims["kubernetes.io"].(map[string]any), "node") //nolint:forcetypeassert // it is
	if sels, _, err := v.Verify(t.Context(), c.Sign(claims), "test.example", time.Now()); err != nil || !slices.Equal(sels.Strings(), want[:5]) {
		t.Errorf("%v, %v", sels, err)
	}
}

func TestATokenThatShowsNoPodOfOursIsRefused(t *testing.T) {
	c, now := parts.NewCluster(t), time.Now()
	v, r := verifier(t, clusterOf(c))
	claims := c.Claims(web, forUs)
	inside := func(with map[string]any, without ...string) map[string]any {
		inner := parts.Without(claims["kubernetes.io"].(map[string]any), with, without...) //nolint:forcetypeassert // it is
		return parts.Without(claims, map[string]any{"kubernetes.io": inner})
	}
	of := func(p parts.Pod) map[string]any { return c.Claims(p, forUs) }
	for name, x := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"another service account":          {of(parts.Pod{Namespace: "shop", ServiceAccount: "admin", Name: "a", UID: uid}), `its service account "shop/admin" is not among those of cluster prod`},
		"its name in another namespace":    {of(parts.Pod{Namespace: "kube-system", ServiceAccount: "web", Name: "a", UID: uid}), "its service account"},
		"another issuer":                   {parts.Without(claims, map[string]any{"iss": "https://other.example"}), "its issuer (iss)"},
		"for two":                          {parts.Without(claims, map[string]any{"aud": []string{forUs, "https://kubernetes.default.svc"}}), "it is for more than one"},
		"that is old":                      {parts.Without(claims, map[string]any{"iat": now.Add(-10*time.Minute - 2*time.Second).Unix()}), "it was issued (iat) more than 10m0s ago"},
		"without a time":                   {parts.Without(claims, nil, "iat"), "it was issued"},
		"of a subject that is another":     {parts.Without(claims, map[string]any{"sub": "system:serviceaccount:shop:orders"}), "its subject (sub)"},
		"of no subject":                    {parts.Without(claims, nil, "sub"), "its subject (sub)"},
		"of a service account and no pod":  {inside(nil, "pod"), "it is bound to no pod"},
		"of a pod without an uid":          {inside(map[string]any{"pod": map[string]any{"name": "a"}}), "it is bound to no pod"},
		"of a pod whose uid is another's":  {inside(map[string]any{"pod": map[string]any{"name": "a", "uid": "../x"}}), "it is bound to no pod"},
		"of a pod as a text":               {inside(map[string]any{"pod": "web"}), "it is bound to no pod"},
		"of a namespace that leads out":    {inside(map[string]any{"namespace": "shop/web"}), "it names no service account"},
		"of an account that leads out":     {inside(map[string]any{"serviceaccount": map[string]any{"name": "web/x"}}), "it names no service account"},
		"of nothing":                       {parts.Without(claims, nil, "kubernetes.io"), "it names no service account"},
		"as Secrets have it, without time": {parts.Without(claims, map[string]any{"kubernetes.io/serviceaccount/namespace": "shop"}, "kubernetes.io", "exp"), "it names no service account"},
	} {
		sels, key, err := v.Verify(t.Context(), c.Sign(x.claims), "test.example", now)
		if err == nil || sels != nil || key != nil || !strings.HasPrefix(err.Error(), x.want) || errors.Is(err, platform.ErrNotNow) {
			t.Errorf("%s: %v, %v", name, sels, err)
		}
	}
	if len(r.took) != 0 || len(r.used) != 0 {
		t.Errorf("what is refused took %v and used %d up", r.took, len(r.used))
	}
}

func TestATokenOfAPodIsGoodOnce(t *testing.T) {
	c := parts.NewCluster(t)
	v, r := verifier(t, clusterOf(c))
	claims := c.Claims(web, forUs)
	delete(claims, "jti") // as clusters before 1.30
	token := c.Sign(claims)
	r.err = errors.New("none left")
	if _, _, err := v.Verify(t.Context(), token, "test.example", time.Now()); !errors.Is(err, platform.ErrNotNow) || !strings.Contains(err.Error(), "none left") {
		t.Errorf("where the quota is used up: %v", err)
	}
	r.err = nil
	if _, _, err := v.Verify(t.Context(), token, "test.example", time.Now()); err != nil {
		t.Errorf("what found no quota was used up: %v", err)
	}
	last := strings.LastIndexByte(token, '.') + 1
	for _, again := range []string{token, token[:last] + "AAAA" + token[last+4:]} { // a signature in another form, of the same claims
		if _, _, err := v.Verify(t.Context(), again, "test.example", time.Now()); !errors.Is(err, platform.ErrUsed) || !errors.Is(err, platform.ErrLater) || !strings.Contains(err.Error(), "was used before") {
			t.Errorf("again: %v", err)
		}
	}
	if len(r.took) != 2 {
		t.Errorf("a token that was used before took of the quota: %q", r.took)
	}
}

// Who has the token of each pod can speak to the cluster as the pod.
func TestAHostShowsNoTokenThatIsForAnybodyElse(t *testing.T) {
	c := parts.NewCluster(t)
	good := c.Sign(c.Claims(web, forUs))
	h := k8spsat.Host{TokenFile: c.Project(good + "\n")}
	if token, err := h.Prove("test.example"); err != nil || token != good {
		t.Errorf("%q, %v", token, err)
	}
	next := c.Sign(c.Claims(web, forUs))
	if err := os.WriteFile(h.TokenFile, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := h.Prove("test.example"); err != nil || token != next {
		t.Errorf("what the kubelet wrote since is not read: %v", err)
	}
	for name, token := range map[string]string{
		"the cluster's own":    c.Sign(c.Claims(web, "https://kubernetes.default.svc.cluster.local")),
		"another trust domain": c.Sign(c.Claims(web, "signet:other.example")),
		"two":                  c.Sign(parts.Without(c.Claims(web, forUs), map[string]any{"aud": []string{forUs, "x"}})),
		"nobody":               c.Sign(parts.Without(c.Claims(web, forUs), nil, "aud")),
		"a secret, no token":   "hunter2", "no claims": "a.!.c",
	} {
		shown, err := k8spsat.Host{TokenFile: c.Project(token)}.Prove("test.example")
		if err == nil || shown != "" || !strings.HasPrefix(err.Error(), "token_file: ") || strings.Contains(err.Error(), token) {
			t.Errorf("one for %s: %q, %v", name, shown, err)
		}
	}
	for name, h := range map[string]k8spsat.Host{
		"no file named": {}, "no such file": {TokenFile: "/nowhere/token"}, "an empty one": {TokenFile: c.Project("")},
		"a large one": {TokenFile: c.Project(strings.Repeat("a", 9<<10))},
	} {
		if err := h.Try(); err == nil || !strings.HasPrefix(err.Error(), "token_file: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAConfigurationOfClustersIsRefusedByItsKey(t *testing.T) {
	c := parts.NewCluster(t)
	good := clusterOf(c)
	change := func(f func(*k8spsat.Cluster)) []k8spsat.Cluster {
		k := good
		f(&k)
		return []k8spsat.Cluster{k}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.WriteFile(open, c.JWKS(), 0o600), os.Chmod(open, 0o666)); err != nil {
		t.Fatal(err)
	}
	for want, clusters := range map[string][]k8spsat.Cluster{
		"clusters[0].name: \"Prod\"":               change(func(k *k8spsat.Cluster) { k.Name = "Prod" }),
		"clusters[0].issuer: ":                     change(func(k *k8spsat.Cluster) { k.Issuer = "" }),
		"clusters[0].keys_url: want either":        change(func(k *k8spsat.Cluster) { k.KeysURL = "" }),
		"clusters[0].keys_url: want either it":     change(func(k *k8spsat.Cluster) { k.KeysFile = "/x" }),
		"clusters[0].keys_url: \"http://a.exa":     change(func(k *k8spsat.Cluster) { k.KeysURL = "http://a.example/keys" }),
		"clusters[0].keys_url: \"nowhere\"":        change(func(k *k8spsat.Cluster) { k.KeysURL = "nowhere" }),
		"clusters[0].keys_file: ":                  change(func(k *k8spsat.Cluster) { k.KeysURL, k.KeysFile = "", "/nowhere/keys" }),
		"clusters[0].keys_file: " + open:           change(func(k *k8spsat.Cluster) { k.KeysURL, k.KeysFile = "", open }),
		"clusters[0].service_accounts: 0 of":       change(func(k *k8spsat.Cluster) { k.ServiceAccounts = nil }),
		"clusters[0].service_accounts[0]: \"web\"": change(func(k *k8spsat.Cluster) { k.ServiceAccounts = []string{"web"} }),
		"clusters[0].service_accounts[0]: \"*/w":   change(func(k *k8spsat.Cluster) { k.ServiceAccounts = []string{"*/web"} }),
		"clusters[1].issuer: it is another":        append(change(func(*k8spsat.Cluster) {}), change(func(k *k8spsat.Cluster) { k.Name = "two" })...),
		"clusters[1].name: prod is there twice":    append(change(func(*k8spsat.Cluster) {}), change(func(k *k8spsat.Cluster) { k.Issuer = "two" })...),
		"clusters: 17 of them":                     slices.Repeat([]k8spsat.Cluster{good}, 17),
	} {
		if _, err := (k8spsat.Config{Clusters: clusters}).Open(platform.Server{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := (k8spsat.Config{AgentsPerServiceAccount: 16001}).Open(platform.Server{}); err == nil || !strings.HasPrefix(err.Error(), "agents_per_service_account: ") {
		t.Error(err)
	}
	if v, err := (k8spsat.Config{}).Open(platform.Server{}); v != nil || err != nil {
		t.Errorf("nothing configured: %v, %v", v, err)
	}
	if err := (k8spsat.Config{Clusters: []k8spsat.Cluster{good}}).Takes([]string{"k8s_psat:service_account:prod/shop/web"}); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{"prod/shop/admin", "other/shop/web", "prod/shop"} {
		if err := (k8spsat.Config{Clusters: []k8spsat.Cluster{good}}).Takes([]string{"k8s_psat:service_account:" + gone}); err == nil {
			t.Errorf("%s is taken", gone)
		}
	}
}

func TestASelectorOfAPodNamesItsCluster(t *testing.T) {
	good := map[string]string{"cluster": "prod", "namespace": "prod/shop", "service_account": "prod/shop/web", "pod": "prod/shop/web-1.a", "pod_uid": "prod/" + uid, "node": "prod/ip-10-0-0-1.eu-west-1.compute.internal"}
	if !maps.EqualFunc(k8spsat.Selectors, good, func(check func(string) error, value string) bool { return check(value) == nil }) {
		t.Errorf("%v are not the forms", good)
	}
	for form, check := range k8spsat.Selectors {
		for _, bad := range []string{"", "/", "prod/", "*", "prod/*", "prod/shop/*", "Prod/shop/web", "prod/shop/web/x", "web ", "prod//web", "prod/shop/"} {
			if bad != good[form] && check(bad) == nil {
				t.Errorf("%s takes %q", form, bad)
			}
		}
	}
}
