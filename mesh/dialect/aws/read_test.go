package aws_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/aws"
	"signet.example/test/parts"
)

var update = flag.Bool("update", false, "rewrite the expectations under testdata; review the diff")

func read(o dialect.Options, files ...dialect.File) *dialect.Found {
	d := dialect.NewDrafts(o)
	for _, f := range files {
		aws.Read(d, f)
	}
	return d.Found()
}

// summary is what was found, for a golden file.
func summary(f *dialect.Found) string {
	var b strings.Builder
	for _, r := range f.Resources {
		fmt.Fprintf(&b, "complete: %s %s of mesh %q\n", r.Kind, r.Name, r.Mesh)
	}
	for _, o := range f.Incomplete {
		fmt.Fprintf(&b, "incomplete: %s\n", o)
	}
	for _, o := range f.Refused {
		fmt.Fprintf(&b, "refused: %s\n", o)
	}
	fmt.Fprintf(&b, "%d values\n", len(f.Taken))
	for _, x := range f.Findings {
		fmt.Fprintf(&b, "  %s\n", x)
	}
	return b.String()
}

// placeholders of the samples stand in the place of strings, without quotes.
func filled(content []byte) []byte {
	text := string(content)
	for name, value := range map[string]string{
		"CERTIFICATE_ARN": "arn:aws:acm:eu-west-1:111122223333:certificate/c", "DNS_HOSTNAME": "white.shop.local",
		"SERVICES_DOMAIN": "shop.local", "NAMESPACE_NAME": "shop.local", "BACKEND_VS_NAME": "color.shop.local",
	} {
		text = strings.ReplaceAll(text, "$"+name, fmt.Sprintf("%q", value))
	}
	return []byte(text)
}

// bare are the samples that have no name: the command had it.
var bare = map[string]dialect.Options{
	"howto-ingress-gateway__mesh_colorgateway-vg.json":                            {Name: "colorgateway"},
	"howto-ingress-gateway__mesh_colorteller-white-vn-tls.json":                   {Name: "colorteller-white"},
	"howto-ingress-gateway__mesh_mesh.json":                                       {Name: "shop", Kind: mesh.KindMesh},
	"howto-mutual-tls-file-provided__mesh_updates_colorteller-vn-strict-tls.json": {Name: "colorteller"},
}

func samples(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(parts.Shared(t, "appmesh", "samples"), "*.json"))
	if err != nil || len(files) != 8 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	slices.Sort(files)
	return files
}

func TestEverySampleOfTheCLIIsRead(t *testing.T) {
	var got strings.Builder
	for _, file := range samples(t) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		fmt.Fprintf(&got, "# %s\n%s\n", name, summary(read(bare[name], dialect.File{Name: name, Content: filled(content)})))
	}
	golden(t, "testdata/samples.golden", got.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (rewrite with -update, review the diff):\n%s", file, d)
	}
}

func file(name, content string) dialect.File {
	return dialect.File{Name: name, Content: []byte(content)}
}

const (
	router = `{"meshName": "shop", "virtualRouterName": "r", "spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}}`
	route  = `{"meshName": "shop", "virtualRouterName": "r", "routeName": "all", "spec": {"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}}}`
)

// names of the objects of a kind.
func names(rs []*mesh.Resource) []string {
	var list []string
	for _, r := range rs {
		list = append(list, string(r.Kind)+" "+r.Mesh+"/"+r.Name)
	}
	return list
}

func TestObjectsAreReadInWhateverTheCLIWroteThem(t *testing.T) {
	const spec = `"spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}], "serviceDiscovery": {"dns": {"hostname": "n.local"}}}`
	const metadata = `"metadata": {"arn": "arn:aws:appmesh:eu-west-1:111122223333:mesh/shop/virtualNode/n", "createdAt": "2020-01-01T00:00:00.000Z", "meshOwner": "111122223333", "uid": "1", "version": 2}, "status": {"status": "ACTIVE"}`
	const body = `{"meshName": "shop", "virtualNodeName": "n", ` + metadata + `, ` + spec + `}`
	for name, content := range map[string]string{
		"create":              `{"meshName": "shop", "virtualNodeName": "n", "clientToken": "a", "tags": [{"key": "a", "value": "b"}], ` + spec + `}`,
		"describe":            `{"virtualNode": ` + body + `}`,
		"the body of the API": body,
		"a list":              `[` + body + `]`,
		"answers in a list":   `[{"virtualNode": ` + body + `}]`,
		"one after another":   `{"virtualNode": ` + body + `}` + "\n" + router + ` ` + route,
		"a plural":            `{"virtualNodes": [` + body + `]}`,
		"the CLI's YAML":      "meshName: shop\nvirtualNodeName: n\nspec:\n  listeners:\n  - portMapping: {port: 80, protocol: http}\n  serviceDiscovery:\n    dns: {hostname: n.local}\n",
		"with tabs":           "{\n\t\"meshName\": \"shop\",\n\t\"virtualNodeName\": \"n\",\n\t" + spec + "\n}\n",
		"an ARN as mesh":      `{"meshName": "arn:aws:appmesh:eu-west-1:111122223333:mesh/shop", "virtualNodeName": "n", ` + spec + `}`,
	} {
		found := read(dialect.Options{}, file("f.json", content))
		if len(found.Resources) == 0 || names(found.Resources)[0] != "VirtualNode shop/n" {
			t.Errorf("%s: %s", name, summary(found))
		}
		for _, f := range found.Findings {
			if f.Outcome != dialect.Defaulted && f.Outcome != dialect.Dropped {
				t.Errorf("%s: %s", name, f)
			}
		}
	}
}

func TestARouteComesIntoItsRouterFromAFileOfItsOwn(t *testing.T) {
	found := read(dialect.Options{}, file("route.json", route), file("router.json", router))
	if len(found.Resources) != 1 {
		t.Fatal(summary(found))
	}
	want := []mesh.RouteSpec{{Name: "all", HTTPRoute: &mesh.HTTPRoute{
		Match:  mesh.HTTPRouteMatch{Prefix: "/"},
		Action: mesh.RouteAction{WeightedTargets: []mesh.WeightedTargetSpec{{VirtualNodeRef: &mesh.Reference{Name: "n"}, Weight: 1}}},
	}}}
	if d := cmp.Diff(want, found.Resources[0].Spec.(*mesh.VirtualRouterSpec).Routes); d != "" {
		t.Error(d)
	}
	bad := read(dialect.Options{}, file("route.json", strings.Replace(route, `"weight": 1`, `"weight": 101`, 1)), file("router.json", router))
	if len(bad.Resources) != 0 || len(bad.Refused) != 2 || len(bad.Findings) == 0 ||
		bad.Findings[0].String() != `route.json:1:179: spec.httpRoute.action.weightedTargets[0].weight: refused: 101 is not within 0 to 100` {
		t.Error(summary(bad))
	}
}

func TestWhatIsNotKnownIsToldAndNotGuessed(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{`{"spec": {}}`, "f.json:1:2: missing: cannot be told to be of a kind"},
		{`{"spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}}`, "f.json:1:2: missing: cannot be told to be of a kind"},
		{`{"spec": {"provider": {"virtualNode": {"virtualNodeName": "n"}}}}`, "f.json:1:2: virtualServiceName: missing: the file does not have the name"},
		{route, `f.json:1:2: virtualRouterName: missing: its router "r" is not among the files`},
		{router + router, `f.json:1:124: virtualRouterName: refused: was given before, at f.json:1: give one of the two`},
		{router + route + strings.Replace(route, `"meshName": "shop", `, "", 1), "complete: VirtualRouter r of mesh \"shop\"\nrefused: Route all\n"},
		{`{"virtualNodes": [{"virtualNodeName": "n", "arn": "a"}]}`, "f.json:1:20: virtualNodes[0]: missing: the answer to list-… has no spec"},
		{`{"virtualNodeName": "n", "meshName": "m", "spec": {"backendz": []}}`, "f.json:1:52: spec.backendz: dropped: App Mesh's model has no such field; did you mean backends?"},
		{`{"virtualNodeName": "n", "meshName": "m"}`, "f.json:1:2: spec: refused: is required"},
		{`{"virtualNodeName": "n", "meshName": "m", "spec": 1}`, "f.json:1:51: spec: refused: must be a mapping"},
		{`{"virtualNodeName": 7, "meshName": "m", "spec": {}}`, "f.json:1:21: virtualNodeName: refused: must be a string, is a whole number: quote it"},
		{`{"virtualNodeName": "a/b", "meshName": "m", "spec": {}}`, `f.json:1:21: virtualNodeName: refused: "a/b" must be letters`},
		{`7`, "f.json:1:1: refused: is not an object of App Mesh"},
		{`{"virtualNodeName": `, "refused"},
	} {
		found := read(dialect.Options{}, file("f.json", c.content))
		if got := summary(found); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.content, got, c.want)
		}
	}
}

// A placeholder without a value stays a text where a text can stand; else its object is
// incomplete.
func TestAPlaceholderWithoutAValueIsOpaqueOrItsObjectIsIncomplete(t *testing.T) {
	unfilled := func(text string) (string, []string) {
		if name, ok := strings.CutPrefix(text, "<"); ok {
			return "${" + name, []string{name}
		}
		return text, nil
	}
	for content, want := range map[string]string{
		`{"virtualNodeName": "n", "meshName": "m", "spec": {"serviceDiscovery": {"dns": {"hostname": "<H"}}}}`:                    `opaque: is "${H": H has no value`,
		`{"virtualNodeName": "n", "meshName": "m", "spec": {"listeners": [{"portMapping": {"port": "<P", "protocol": "http"}}]}}`: "missing: must be a whole number",
		`{"virtualNodeName": "n", "meshName": "m", "spec": {"listeners": [{"portMapping": {"port": 1, "protocol": "<P"}}]}}`:      `missing: "${P" is not`,
		`{"virtualNodeName": "n", "meshName": "m", "spec": {"listeners": "<L"}}`:                                                  "missing: must be a list",
		`{"virtualNodeName": "n", "meshName": "m", "spec": "<S"}`:                                                                 "missing: cannot be known: S has no value",
		`{"virtualNodeName": "<N", "meshName": "m", "spec": {}}`:                                                                  "missing: cannot be known: N has no value",
		`{"virtualNodeName": "n", "meshName": "<M", "spec": {}}`:                                                                  "missing: cannot be known: M has no value",
	} {
		found := read(dialect.Options{}, dialect.File{Name: "f.json", Content: []byte(content), Unfilled: unfilled})
		complete := strings.HasPrefix(want, "opaque")
		if got := summary(found); !strings.Contains(got, want) || complete != (len(found.Resources) == 1) || complete == (len(found.Incomplete) == 1) {
			t.Errorf("%s: %s\nwant %s", content, got, want)
		}
		for _, f := range found.Findings {
			if len(f.Unfilled) != 1 && f.Outcome != dialect.Defaulted {
				t.Errorf("%s: %s: %v", content, f, f.Unfilled)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, content := range []string{router + route, `[{"mesh": {"meshName": "m", "metadata": {}}}]`, `{"spec": {}}`, "a: &a [*a]", `{"virtualNodes": [{}]}`} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		found := read(dialect.Options{Name: "n", Mesh: "m"}, dialect.File{Name: "f", Content: content})
		for _, r := range found.Resources {
			if docs, err := mesh.Split("again", r.Encode()); err != nil || len(docs) != 1 {
				t.Fatalf("%s cannot be written: %v", r, err)
			}
		}
	})
}
