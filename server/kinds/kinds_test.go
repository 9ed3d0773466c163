package kinds_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/server/kinds"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

func document(t *testing.T, text string) *manifest.Document {
	t.Helper()
	docs, err := mesh.Split("test.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatal(len(docs), err)
	}
	return docs[0]
}

// samples has one manifest of each kind that is applied.
var samples = map[string]string{
	"Mesh":                  "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n",
	"VirtualNode":           "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web}\nspec: {meshRef: {name: shop}}\n",
	"VirtualRouter":         "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: web}\nspec: {meshRef: {name: shop}, listeners: [{portMapping: {port: 80, protocol: http}}]}\n",
	"VirtualService":        "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: web}\nspec: {meshRef: {name: shop}}\n",
	"VirtualGateway":        "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: front}\nspec: {meshRef: {name: shop}, listeners: [{portMapping: {port: 80, protocol: http}}]}\n",
	"GatewayRoute":          "apiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: all}\nspec: {meshRef: {name: shop}, virtualGatewayRef: {name: front}, httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: web}}}}}}\n",
	"BackendGroup":          "apiVersion: appmesh.k8s.aws/v1beta2\nkind: BackendGroup\nmetadata: {name: all}\nspec: {meshRef: {name: shop}, virtualservices: [{name: web}]}\n",
	"VirtualNodeOptions":    "apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: web}\nspec: {meshRef: {name: shop}, listeners: [{port: 80, circuitBreaker: {maxRetries: 3}}]}\n",
	"VirtualGatewayOptions": "apiVersion: signet.example/v1alpha1\nkind: VirtualGatewayOptions\nmetadata: {name: front}\nspec: {meshRef: {name: shop}, listeners: [{port: 80, ingress: [{name: alb, ranges: [10.0.1.0/24]}]}]}\n",
	"NodeGroup":             "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: edge}\n",
	"Entry":                 "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: batch}\nspec: {group: edge, spiffeID: \"spiffe://test.example/batch\", selectors: [\"unix:uid:7\"]}\n",
	"MeshOptions":           "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {authorization: enforce}\n",
	"Binding":               "apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web}\nspec: {group: edge, mesh: shop, virtualNode: web, selectors: [\"unix:uid:7\"]}\n",
	"JWTIssuer":             "apiVersion: signet.example/v1alpha1\nkind: JWTIssuer\nmetadata: {name: login}\nspec: {issuer: \"https://login.example\", audiences: [web], jwksURL: \"https://login.example/keys\"}\n",
	"ALBIssuer":             "apiVersion: signet.example/v1alpha1\nkind: ALBIssuer\nmetadata: {name: front}\nspec: {issuer: \"https://login.example\", clients: [web], signers: [\"arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188\"], ingress: [alb]}\n",
	"PolicySource":          "apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: rules}\nspec: {url: \"https://git.example/rules.git\"}\n",
}

func TestAnObjectOfEachKindReadsBackAsItIsStored(t *testing.T) {
	for _, k := range kinds.All() {
		text, have := samples[k.Name]
		if !have {
			t.Errorf("%s: no sample", k.Name)
			continue
		}
		o, err := kinds.Parse(document(t, text), td)
		if err != nil || len(o.Refused()) > 0 || len(o.Warnings()) > 0 {
			t.Errorf("%s: %v %v %v", k.Name, err, o.Refused(), o.Warnings())
			continue
		}
		key := o.Key()
		if key.Kind != k.Name || key.Row().Plural != k.Plural || (key.Mesh == "") != k.Own() {
			t.Errorf("%s has the key %+v", k.Name, key)
		}
		again, err := kinds.ReadBack(key, o.Encode(), td)
		if err != nil || !o.SameAs(again) {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		if o.Value != nil {
			if d := cmp.Diff(o.Value, again.Value, cmp.AllowUnexported(spiffeid.ID{}, spiffeid.TrustDomain{}, identity.Entry{})); d != "" {
				t.Errorf("%s reads back as another value: %s", k.Name, d)
			}
		}
		key.Name = "other"
		if _, err := kinds.ReadBack(key, o.Encode(), td); err == nil || !strings.Contains(err.Error(), "it reads back as") {
			t.Errorf("%s under another name: %v", k.Name, err)
		}
	}
}

// A server has thousands of objects, and what was read of the text of each was half of what it had in
// memory.
func TestWhatIsReadBackTakesLittleMoreThanItsText(t *testing.T) {
	text := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web}\nspec:\n  meshRef: {name: shop}\n  backends:\n"
	for i := range 20 {
		text += fmt.Sprintf("    - virtualService: {virtualServiceRef: {name: s%d}}\n", i)
	}
	o, err := kinds.Parse(document(t, text), td)
	if err != nil {
		t.Fatal(err)
	}
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	all, before := make([]*kinds.Object, 500), used()
	for i := range all {
		if all[i], err = kinds.ReadBack(o.Key(), o.Encode(), td); err != nil {
			t.Fatal(err)
		}
	}
	each := (int(used()) - int(before)) / len(all) //nolint:gosec // no test has so much
	runtime.KeepAlive(all)
	t.Logf("%d bytes for a text of %d", each, len(o.Encode()))
	if most := 5 * len(o.Encode()); each > most {
		t.Errorf("%d bytes for a text of %d, at most %d are expected", each, len(o.Encode()), most)
	}
}

func TestAKindIsFoundByItsNameItsPluralAndItsShortName(t *testing.T) {
	seen := map[string]string{}
	for _, k := range kinds.All() {
		for _, name := range []string{k.Name, strings.ToLower(k.Name), strings.ToUpper(k.Name), k.Plural, k.Short} {
			if name == "" {
				continue
			}
			if found, ok := kinds.Find(name); !ok || found.Name != k.Name {
				t.Errorf("%q is not %s but %q", name, k.Name, found.Name)
			}
			if other := seen[strings.ToLower(name)]; other != "" && other != k.Name {
				t.Errorf("%q is %s and %s", name, other, k.Name)
			}
			seen[strings.ToLower(name)] = k.Name
		}
	}
	for _, name := range []string{"", "s", "agents", "pod"} {
		if k, ok := kinds.Find(name); ok {
			t.Errorf("%q is %s", name, k.Name)
		}
	}
}

func TestAnObjectNamesWhatItRefersTo(t *testing.T) {
	texts := func(kind string) []string {
		o, err := kinds.Parse(document(t, samples[kind]), td)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, r := range o.Refers() {
			list = append(list, r.Field+": "+r.Verb+" "+r.To.String())
		}
		return list
	}
	for kind, want := range map[string][]string{
		"Entry":       {"spec.group: names NodeGroup edge"},
		"Binding":     {"spec.group: names NodeGroup edge", "spec.virtualNode: grants VirtualNode shop/web"},
		"NodeGroup":   nil,
		"VirtualNode": nil, // what is of the mesh, its graph resolves
	} {
		if d := cmp.Diff(want, texts(kind)); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
}

// What a newer version would not apply is served as long as it is stored.
func TestWhatApplyRefusesOfASpecIsReadBackAllTheSame(t *testing.T) {
	for _, c := range []struct{ kind, old, now, field string }{
		{"PolicySource", "https://git.example/rules.git", "git://git.example/rules", "spec.url"},
		{"Entry", "unix:uid:7", "unix:user:web", "spec.selectors[0]"},
		{"Binding", "unix:uid:7", "docker:label:a:b", "spec.selectors[0]"},
		{"VirtualNode", "meshRef: {name: shop}", "meshRef: {name: shop}, listeners: [{portMapping: {port: 80, protocol: http}}], serviceDiscovery: {dns: {hostname: $HOST}}", "spec.serviceDiscovery.dns.hostname"},
		{"MeshOptions", "authorization: enforce", "headersWithUnderscores: [color_header, x_request_id]", "spec.headersWithUnderscores[1]"},
		{"JWTIssuer", "audiences: [web]", "audiences: [\"web-*\"]", "spec.audiences[0]"},
	} {
		o, err := kinds.Parse(document(t, strings.Replace(samples[c.kind], c.old, c.now, 1)), td)
		if err != nil || len(o.Refused()) != 1 || o.Refused()[0].Field != c.field || o.Refused()[0].Line != 4 {
			t.Errorf("%s: %v %v", c.kind, err, o.Refused())
			continue
		}
		if _, err := kinds.ReadBack(o.Key(), o.Encode(), td); err != nil {
			t.Error(err)
		}
	}
}

func TestASelectorThatNoProcessHasIsToldWithAllOtherFaults(t *testing.T) {
	text := strings.NewReplacer("group: edge", "group: a/b", `["unix:uid:7"]`, `["unix:uid:x", "unix:uid:7", "unix:pth:/x", "unix:uid:7"]`)
	for _, kind := range []string{"Entry", "Binding"} {
		_, err := kinds.Parse(document(t, text.Replace(samples[kind])), td)
		var fields []string
		for _, e := range manifest.AsErrors(err) {
			fields = append(fields, e.Field)
		}
		if d := cmp.Diff([]string{"spec.group", "spec.selectors[0]", "spec.selectors[2]", "spec.selectors[3]"}, fields); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
}

func TestADocumentOfAnotherGroupIsForeignAndAnUnknownKindIsRefused(t *testing.T) {
	if _, err := kinds.Parse(document(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"), td); !errors.Is(err, kinds.ErrForeign) {
		t.Error(err)
	}
	for _, kind := range []string{"Mesh", "Agent", "entry"} {
		_, err := kinds.Parse(document(t, "apiVersion: signet.example/v1alpha1\nkind: "+kind+"\nmetadata: {name: x}\n"), td)
		if err == nil || !strings.Contains(err.Error(), "(MeshOptions, VirtualNodeOptions, VirtualGatewayOptions, NodeGroup, Entry, Binding, JWTIssuer, ALBIssuer, PolicySource)") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// An unknown key is no reason to stop: what stands beside it is wrong or right as it is.
func TestAnUnknownKeyHidesNoWrongValue(t *testing.T) {
	for what, c := range map[string]struct {
		manifest string
		want     []string
	}{
		"of Signet's": {
			"apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: e}\nspec:\n  gruop: edge\n  spiffeID: spiffe://other.example/x\n  selectors: [unix]\n",
			[]string{"spec.group", "spec.gruop", "spec.spiffeID", "spec.selectors[0]"},
		},
		"of App Mesh's": {
			"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n}\nspec:\n  listener: []\n  listeners:\n  - portMapping: {port: 80, protocol: tcp}\n    timeout: {http: {idle: {unit: s, value: 1}}}\n  - portMapping: {port: 80, protocol: http}\n  backendGroups: [{name: '*'}]\n",
			[]string{"spec.listener", "spec.listeners[0].timeout.http", "spec.listeners[1].portMapping.port", "spec.backendGroups[0].name"},
		},
	} {
		_, err := kinds.Parse(document(t, c.manifest), td)
		var got []string
		for _, e := range manifest.AsErrors(err) {
			got = append(got, e.Field)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s\n%v", what, d, err)
		}
	}
}
