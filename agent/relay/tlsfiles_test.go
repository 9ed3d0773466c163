package relay

import (
	"crypto/elliptic"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/agent/tlsfiles"
	"signet.example/proxy"
	"signet.example/test/parts"
)

// A proxy of the same virtual node, binding and shape that the agent does not run, and
// another one that it does, ask for the same names.
func TestFilesAreServedToTheProxyWhoseHostLetsItHaveThemAlone(t *testing.T) {
	r, _, p := idleRelay(t)
	r.Configure("q", p.ref, proxy.Shape{Bind: "127.0.0.3", App: "127.0.0.1"})
	k := parts.ECKey(t, elliptic.P256())
	cert, key := parts.WriteHost(t, k, parts.NewHostCA(t, "of a file").Sign(k.Public(), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) }))
	dir := t.TempDir()
	for from, to := range map[string]string{cert: "web.pem", key: "web.key"} {
		if err := os.Rename(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	files := proxy.TLSFiles{Certificate: "/keys/web.pem", Key: "/keys/web.key"}
	ca := proxy.TLSFiles{Authorities: "/keys/web.pem"}
	r.AllowFiles(map[string][]tlsfiles.Dir{"p": {{Dir: dir, As: "/keys"}}, "": {{Dir: dir, As: "/keys"}}})

	root := svidstest.NewRoot(t)
	s := root.SVID("web", "/m/n")
	r.config.Trust.Set(root.Trust(1))
	r.config.SVIDs.(*svids.Keeper).Install(s)
	as := svids.Name{Entry: "web", ID: s.ID}
	secrets := func(own string, sub subscriptionKey) []string {
		t.Helper()
		v, err := r.view(t.Context(), viewKey{sub, as, own})
		if err != nil {
			t.Fatal(err)
		}
		v.sub.released.Set(&routing{set: &ads.Set{}, files: []string{ca.Name(), files.Name()}})
		for end := time.Now().Add(10 * time.Second); v.published.Load() == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing is published")
			}
		}
		var names []string
		for _, s := range v.published.Load().Type(ads.SecretType) {
			names = append(names, s.Name)
		}
		slices.Sort(names)
		return names
	}
	want := []string{ca.Name(), files.Name(), "spiffe://test.example", s.ID.String()}
	if got := secrets("p", p); !slices.Equal(got, want) {
		t.Errorf("it has %v, want %v", got, want)
	}
	for name, got := range map[string][]string{
		"one that the agent does not run": secrets("", p),
		"one without the folder":          secrets("q", subscriptionKey{p.ref, proxy.Shape{Bind: "127.0.0.3", App: "127.0.0.1"}}),
	} {
		if !slices.Equal(got, want[2:]) {
			t.Errorf("%s has %v", name, got)
		}
	}
	if got := r.FileProblems(); got != 4 {
		t.Errorf("%d problems, want those of two names for each of the others", got)
	}
}
