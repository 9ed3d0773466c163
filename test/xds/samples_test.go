package xdstest_test

import (
	"os"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/proxy"
	"signet.example/test/samples"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// TestEnvoyAcceptsWhatIsCompleteOfEverySample serves the proxies of every sample of
// App Mesh to one Envoy after the other view, as they come in by import. What this version
// does not translate yet is left out by --partial's rule, and only a sample of which nothing
// is left is not tried.
func TestEnvoyAcceptsWhatIsCompleteOfEverySample(t *testing.T) {
	pki := newPKI(t)
	var p *running
	whole, files, views, dumps, lossy := 0, 0, 0, 0, 0
	for _, form := range importer.Forms() {
		for _, name := range samples.Of(t, importer.Form(form)) {
			r := samples.Whole(t, importer.Form(form), name)
			files++
			if r.Done() {
				whole++
			}
			for _, f := range r.Findings {
				if f.Outcome == dialect.Refused {
					t.Log(f)
				}
			}
			g := samples.Graph(t, name, r.Manifests())
			if g == nil {
				continue
			}
			for _, m := range g.Meshes() {
				for _, n := range g.Nodes(m) {
					if os.Getuid() != 0 && privileged(n) {
						continue
					}
					c := xdstest.Case{Name: name, Mesh: m, Node: n.Name, Gateway: n.Gateway != nil, Shape: xdstest.Shape, Input: xds.Input{
						Graph: g, TrustDomain: xdstest.TrustDomain, PolicyRevision: "5f0c2a",
						Managed: func(proxy.Ref) bool { return true },
					}}
					c.Shape.Bind = loopback()
					c.Shape.Suit(c.Ref())
					if p == nil {
						p = startProxy(t, c, pki)
					} else {
						p.publish(c, pki)
						p.settle()
					}
					views++
					if !c.Gateway && (views%3 == 0 || os.Getenv("SOAK") == "1") {
						dumps++
						lossy += comesBack(t, p.envoy, c)
					}
				}
			}
		}
	}
	t.Logf("%d of %d samples are complete; %d views; of %d dumps %d have what does not come back", whole, files, views, dumps, lossy)
	if files != 40 || whole < minWhole || views < minViews || lossy > 0 {
		t.Errorf("%d samples, %d of them complete, %d views", files, whole, views)
	}
}

// How much came in when this was written; more is better.
const minWhole, minViews = 40, 116

func privileged(n *mesh.VirtualNode) bool {
	for _, l := range n.Listeners {
		if l.Port < 1024 {
			return true
		}
	}
	return false
}
