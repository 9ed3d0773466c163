package dialect_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/aws"
	"signet.example/mesh/dialect/cloudformation"
	"signet.example/test/parts"
)

// same compares by meaning: where a resource was written is no part of it.
var same = cmp.Options{
	cmpopts.IgnoreFields(mesh.Resource{}, "Doc"), cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b *mesh.Resource) bool { return a.Mesh+string(a.Kind)+a.Name < b.Mesh+string(b.Kind)+b.Name }),
}

// again writes resources in a form and reads them again.
func again(t *testing.T, name string, rs []*mesh.Resource) (*dialect.Found, []dialect.Finding, string) {
	t.Helper()
	d := dialect.NewDrafts(dialect.Options{})
	if name == "cloudformation" {
		content, losses := cloudformation.Write(rs)
		cloudformation.Read(d, dialect.File{Name: "again.yaml", Content: content})
		return d.Found(), losses, string(content)
	}
	inputs, losses, err := aws.Write(rs)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for i, in := range inputs {
		aws.Read(d, dialect.File{Name: fmt.Sprintf("%d.json", i), Content: in.JSON})
		all.Write(in.JSON)
	}
	return d.Found(), losses, all.String()
}

// back checks that resources come back as they were, and with nothing to say about them.
func back(t *testing.T, form string, rs []*mesh.Resource) {
	t.Helper()
	found, losses, text := again(t, form, rs)
	if d := cmp.Diff(rs, found.Resources, same...); d != "" || len(losses)+len(found.Findings) > 0 {
		t.Errorf("%s: lost %v, found %v\n%s\n%s", form, losses, found.Findings, d, text)
	}
}

func TestEveryPathOfTheModelIsWrittenAndReadAgainTheSame(t *testing.T) {
	m := readModel(t)
	for _, o := range objects {
		for _, s := range m.sites(o.shape) {
			found, _ := forms[0].try(t, o, m.make(o.shape, "", s.steps))
			for _, f := range written {
				back(t, f.name, found.Resources)
			}
		}
	}
}

var sampleOptions = dialect.Options{
	Name: "n", Kind: mesh.KindMesh,
	Parameters: map[string]string{
		"MicroserviceName": "yelb-ui", "EnvironmentName": "yelb", "Port": "80", "Protocol": "http",
		"AppMeshMeshName": "color", "MeshName": "m", "ServicesDomain": "color.local", "ProjectName": "project",
	},
	Exports: map[string]string{"yelb:Mesh": "yelb"},
}

func TestSamplesAreWrittenIntoTheirFormAndReadAgainTheSame(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(parts.Shared(t, "appmesh", "samples"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	resources := map[string]int{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, form := dialect.File{Name: filepath.Base(file), Content: content}, ""
		d := dialect.NewDrafts(sampleOptions)
		switch {
		case strings.HasSuffix(file, ".json"):
			form = "aws"
			for _, name := range []string{"CERTIFICATE_ARN", "DNS_HOSTNAME", "SERVICES_DOMAIN", "NAMESPACE_NAME", "BACKEND_VS_NAME"} {
				f.Content = []byte(strings.ReplaceAll(string(f.Content), "$"+name, fmt.Sprintf("%q", strings.ToLower(name))))
			}
			if strings.Contains(file, "retries") { // a route by itself
				router := `{"virtualRouterName": "virtual-router", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]}}`
				aws.Read(d, dialect.File{Name: "router.json", Content: []byte(router)})
			}
			aws.Read(d, f)
		case strings.Contains(string(content), "AWS::AppMesh::"):
			form = "cloudformation"
			cloudformation.Read(d, f)
		default:
			continue
		}
		found := d.Found()
		resources[form] += len(found.Resources)
		if len(found.Resources) == 0 || len(found.Incomplete)+len(found.Refused) > 0 {
			t.Errorf("%s: %v %v", f.Name, found.Incomplete, found.Refused)
		}
		back(t, form, found.Resources)
		back(t, map[string]string{"aws": "cloudformation", "cloudformation": "aws"}[form], found.Resources)
	}
	if d := cmp.Diff(map[string]int{"aws": 8, "cloudformation": 136}, resources); d != "" {
		t.Error(d)
	}
}

// What Kubernetes' form has beside the API's is listed, object by object.
func TestWhatTheAPIDoesNotHaveIsListed(t *testing.T) {
	const crds = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop, labels: {a: b}}
spec: {namespaceSelector: {matchLabels: {mesh: shop}}, meshOwner: "1"}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front, namespace: ns, annotations: {a: b}}
spec:
  podSelector: {matchLabels: {app: front}}
  listeners: [{portMapping: {port: 80, protocol: http}}]
  backends: [{virtualService: {virtualServiceRef: {name: named}}}, {virtualService: {virtualServiceRef: {name: elsewhere, namespace: far}}}]
  backendGroups: [{name: group}, {name: gone}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: BackendGroup
metadata: {name: group, namespace: ns}
spec: {virtualservices: [{name: named}, {name: more}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: named, namespace: ns}
spec: {awsName: named.local, provider: {virtualNode: {virtualNodeARN: 'arn:aws:appmesh:r:1:mesh/shop/virtualNode/front_ns'}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: more, namespace: ns}
`
	docs, err := mesh.Split("f.yaml", []byte(crds))
	if err != nil {
		t.Fatal(err)
	}
	var rs []*mesh.Resource
	for _, d := range docs {
		r, err := mesh.Parse(d)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	if err := mesh.AssignMeshes(rs); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Mesh shop metadata.labels", "Mesh shop spec.namespaceSelector", "Mesh shop spec.meshOwner",
		"VirtualNode front_ns metadata.name", "VirtualNode front_ns metadata.annotations",
		"VirtualNode front_ns spec.backends[1].virtualService.virtualServiceRef", "VirtualNode front_ns spec.podSelector",
		"VirtualNode front_ns spec.backendGroups[0]", "VirtualNode front_ns spec.backendGroups[1]",
		"VirtualService more.ns metadata.name", "VirtualService named.local metadata.name",
		"BackendGroup group_ns kind",
	}
	for _, f := range written {
		found, losses, text := again(t, f.name, rs)
		var got []string
		for _, l := range losses {
			got = append(got, l.What+" "+l.Path)
		}
		if d := cmp.Diff(want, got); d != "" || len(found.Resources) != 4 {
			t.Errorf("%s: %s\n%v\n%s", f.name, d, found.Findings, text)
			continue
		}
		var names []string
		for _, b := range found.Resources[1].Spec.(*mesh.VirtualNodeSpec).Backends {
			names = append(names, b.VirtualService.VirtualServiceRef.Name)
		}
		if d := cmp.Diff([]string{"named.local", "elsewhere.far", "more.ns"}, names); d != "" {
			t.Errorf("%s: %s", f.name, d)
		}
	}
}
