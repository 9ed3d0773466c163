package xds_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// sectionsMesh has what a section of a view can depend on beside the objects that it is of.
const sectionsMesh = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {meshServiceDiscovery: {ipPreference: IPv4_ONLY}}
---
apiVersion: signet.example/v1alpha1
kind: MeshOptions
metadata: {name: shop}
spec: {authorization: enforce}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}, {portMapping: {port: 9000, protocol: tcp}}]
  backends: [{virtualService: {virtualServiceRef: {name: back}}}, {virtualService: {virtualServiceRef: {name: other}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: back}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: back.example}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: caller}
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  backends: []
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: back}
spec: {provider: {virtualNode: {virtualNodeRef: {name: back}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: other}
spec: {provider: {virtualNode: {virtualNodeRef: {name: back}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: front}
spec: {provider: {virtualNode: {virtualNodeRef: {name: front}}}}
`

// Each case is another view than the first, and each is made after the first and before it.
func TestASectionIsMadeAgainWhereAnythingThatItDependsOnIsAnother(t *testing.T) {
	is := func(yes bool) func(proxy.Ref) bool { return func(proxy.Ref) bool { return yes } }
	at := func(es ...xds.Endpoint) func(in *xds.Input) {
		return func(in *xds.Input) { in.Endpoints = func(proxy.Ref, uint32) []xds.Endpoint { return es } }
	}
	replaced := func(old, with string) string {
		t.Helper()
		if !strings.Contains(sectionsMesh, old) {
			t.Fatalf("the mesh has no %q", old)
		}
		return strings.Replace(sectionsMesh, old, with, 1)
	}
	const byPolicy = "{name: back}, clientPolicy: {tls: {enforce: true, validation: {trust: {sds: {secretName: \"spiffe://test.example\"}}, subjectAlternativeNames: {match: {exact: [\"spiffe://test.example/x\"]}}}}}}}, {virtual"
	type other struct {
		text  string
		in    func(in *xds.Input)
		shape func(s *proxy.Shape)
	}
	g := graphtest.Graph(t, "mesh.yaml", []byte(sectionsMesh))
	build := func(o other, past *xds.Past) *ads.Set {
		t.Helper()
		in, shape := xds.Input{TrustDomain: xdstest.TrustDomain, PolicyRevision: "one", Past: past}, xdstest.Shape
		at(xds.Endpoint{Address: "10.0.0.1", Port: 8080, Healthy: true})(&in)
		if o.in != nil {
			o.in(&in)
		}
		if o.shape != nil {
			o.shape(&shape)
		}
		in.Graph = g
		if o.text != "" { // objects that are as they were are the same ones, but where a mesh is another
			var ok bool
			if in.Graph, ok = g.With(graphtest.Resources(t, "mesh.yaml", []byte(otherThan(sectionsMesh, o.text))), nil); !ok {
				in.Graph = graphtest.Graph(t, "mesh.yaml", []byte(o.text))
			}
		}
		set, err := xds.Build(in, proxy.Node("shop", "front"), shape)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first := build(other{}, nil).Version()
	for what, o := range map[string]other{
		"registered elsewhere":   {in: at(xds.Endpoint{Address: "10.0.0.2", Port: 8080, Healthy: true})},
		"registered, unhealthy":  {in: at(xds.Endpoint{Address: "10.0.0.1", Port: 8080})},
		"not registered":         {in: at()},
		"found outside":          {in: func(in *xds.Input) { in.Outside = is(true) }},
		"managed, not there":     {in: func(in *xds.Input) { at()(in); in.Managed = is(true) }},
		"managed and awaited":    {in: func(in *xds.Input) { in.Endpoints, in.Managed, in.Awaited = nil, is(true), is(true) }},
		"hardened":               {in: func(in *xds.Input) { in.Strict = is(true) }},
		"post-quantum":           {in: func(in *xds.Input) { in.RequirePostQuantum = func(string) bool { return true } }},
		"trust domain":           {in: func(in *xds.Input) { in.TrustDomain = spiffeid.RequireTrustDomainFromString("other.example") }},
		"lifetime":               {in: func(in *xds.Input) { in.SVIDLifetime = time.Minute }},
		"policy":                 {in: func(in *xds.Input) { in.PolicyRevision = "two" }},
		"what passes unsafely":   {text: replaced("metadata: {name: shop}\nspec: {meshS", "metadata: {name: shop, annotations: {signet.example/unsafe: query-semicolons}}\nspec: {meshS")},
		"headers of Envoy":       {text: replaced("authorization: enforce", "envoyHeaders: suppress")},
		"headers with _":         {text: replaced("authorization: enforce", "headersWithUnderscores: [a_b]")},
		"IP preference":          {in: at(), text: replaced("IPv4_ONLY", "IPv6_ONLY")},
		"who calls by tcp":       {text: replaced("  backends: []", "  backends: [{virtualService: {virtualServiceRef: {name: front}}}]")},
		"its own listener":       {text: replaced("port: 8080, protocol: http}}, {", "port: 8080, protocol: http2}}, {")},
		"a target's name":        {text: replaced("back.example", "moved.example")},
		"how a target is called": {text: replaced("{name: back}}}, {virtual", byPolicy)},
		"where applications are": {shape: func(s *proxy.Shape) { s.App = "127.0.0.9" }},
		"which answers are told": {shape: func(s *proxy.Shape) { s.Answers = false }},
	} {
		var past xds.Past
		for step, o := range []other{{}, o, {}} {
			got, want := build(o, &past), build(o, nil)
			if got.Version() != want.Version() {
				t.Errorf("%s, step %d: not what is made without a past: %q", what, step, changed(want, got))
			}
			if same := want.Version() == first; same != (step != 1) {
				t.Errorf("%s, step %d: the view of the first step: %v", what, step, same)
			}
		}
	}
}

// otherThan are the documents of a text that are not in another one.
func otherThan(was, is string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(is, "---\n"), func(doc string) bool {
		return slices.Contains(strings.Split(was, "---\n"), doc)
	}), "---\n")
}

// What does not depend on what a virtual node calls, and on how, is the same resource.
func TestOneServicesChangeMakesNoOtherSectionAnew(t *testing.T) {
	g := graphtest.Graph(t, "mesh.yaml", []byte(manyRoutes(20, 2)))
	in := xds.Input{Graph: g, TrustDomain: xdstest.TrustDomain, Past: &xds.Past{}, Managed: func(proxy.Ref) bool { return true }}
	build := func() *ads.Set {
		t.Helper()
		set, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	was := build()
	put := graphtest.Resources(t, "changed.yaml", []byte("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: s3}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http2}}]\n"))
	var ok bool
	if in.Graph, ok = g.With(put, nil); !ok {
		t.Fatal("the graph does not take the change")
	}
	is, anew := build(), map[string]int{}
	for _, typeURL := range is.Types() {
		for _, r := range is.Type(typeURL) {
			if was.Get(typeURL, r.Name) != r {
				anew[typeURL]++
			}
		}
	}
	if want := map[string]int{ads.ClusterType: 1, ads.EndpointType: 1, ads.RouteType: 1}; !maps.Equal(anew, want) {
		t.Errorf("made anew: %v, want %v", anew, want)
	}
}
