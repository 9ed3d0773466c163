package importer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
)

func report(o importer.Options, texts ...string) *importer.Report {
	var files []dialect.File
	for i, text := range texts {
		files = append(files, dialect.File{Name: fmt.Sprintf("f%d.yaml", i), Content: []byte(text)})
	}
	return importer.Read(files, o)
}

func object(kind, name, spec string) string {
	return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

func states(r *importer.Report) []string {
	var list []string
	for _, o := range r.Objects {
		list = append(list, fmt.Sprintf("%s %s/%s: %s", o.Kind, o.Mesh, o.Name, o.State))
	}
	return list
}

// Whatever the form, a report has each field that was taken, by the name that the file has
// for it, and what there is to say of one.
func TestEachFieldThatIsTakenIsInTheReportOfEveryForm(t *testing.T) {
	for form, of := range map[importer.Form]struct{ text, want string }{
		importer.CRD: {
			object("VirtualNode", "web", "{meshRef: {name: shop}, listeners: [{portMapping: {port: 80, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: 'arn:aws:acm:r:1:certificate/c'}}}}]}"),
			`metadata.name
				spec.listeners[0].portMapping.port spec.listeners[0].portMapping.protocol spec.listeners[0].tls.certificate.acm.certificateARN! spec.listeners[0].tls.mode
				spec.meshRef.name`,
		},
		importer.AWS: {
			`{"meshName": "shop", "virtualNodeName": "web", "spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}, "tls": {"mode": "STRICT", "certificate": {"acm": {"certificateArn": "arn:aws:acm:r:1:certificate/c"}}}}], "backends": []}}`,
			`meshName spec.backends
				spec.listeners[0].portMapping.port spec.listeners[0].portMapping.protocol spec.listeners[0].tls.certificate.acm.certificateArn! spec.listeners[0].tls.mode
				virtualNodeName`,
		},
		importer.CloudFormation: {
			"Parameters: {Port: {Type: Number, Default: 80}}\nResources: {Web: {Type: AWS::AppMesh::VirtualNode, Properties: {MeshName: shop, VirtualNodeName: web, " +
				"Spec: {Listeners: [{PortMapping: {Port: !Ref Port, Protocol: http}}]}}}}\n",
			`Resources.Web.Properties.MeshName
				Resources.Web.Properties.Spec.Listeners[0].PortMapping.Port Resources.Web.Properties.Spec.Listeners[0].PortMapping.Protocol
				Resources.Web.Properties.VirtualNodeName`,
		},
		importer.Terraform: {
			`{"version": 4, "terraform_version": "1.9.8", "resources": [{"mode": "managed", "type": "aws_appmesh_virtual_node", "name": "n", "instances": [{"attributes":
				{"mesh_name": "shop", "name": "web", "spec": [{"backend": [], "listener": [{"port_mapping": [{"port": 80, "protocol": "http"}], "tls": []}]}]}}]}]}`,
			`aws_appmesh_virtual_node.n.mesh_name aws_appmesh_virtual_node.n.name
				aws_appmesh_virtual_node.n.spec[0].listener[0].port_mapping[0].port aws_appmesh_virtual_node.n.spec[0].listener[0].port_mapping[0].protocol`,
		},
		importer.Envoy: {
			`{"configs": [{"bootstrap": {"node": {"id": "mesh/shop/virtualNode/web"}}}, {"dynamic_active_clusters": [{"cluster": {"name": "cds_ingress_shop_web_http_80"}}]}]}`,
			"mesh name spec.listeners[0].portMapping.port spec.listeners[0].portMapping.protocol",
		},
	} {
		r := report(importer.Options{Form: form}, of.text)
		var got []string
		for _, f := range r.Findings {
			if f.Outcome != dialect.Mapped || f.Object == "Mesh shop" { // of which dumps tell, too
				continue
			}
			if f.Text != "" {
				f.Field += "!"
			}
			if got = append(got, f.Field); f.Line == 0 || f.Object != "VirtualNode web" {
				t.Errorf("%s: %+v", form, f)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(strings.Fields(of.want), got); d != "" || r.Counts[dialect.Mapped] < len(got) {
			t.Errorf("%s: %v: %s\n%v", form, r.Counts, d, r.Findings)
		}
	}
}

func TestAReferenceThatLeadsToNothingIsUnresolvedAndOneToWhatIsLeftOutLeavesOut(t *testing.T) {
	target := func(node string) string {
		return "{listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: r, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: " + node + "}, weight: 1}]}}}]}"
	}
	r := report(importer.Options{},
		object("Mesh", "shop", "{}")+
			object("VirtualRouter", "away", target("elsewhere"))+
			object("VirtualRouter", "half", target("broken"))+
			object("VirtualService", "half.example", "{provider: {virtualRouter: {virtualRouterRef: {name: half}}}}")+
			object("VirtualService", "arn.example", "{provider: {virtualRouter: {virtualRouterARN: 'arn:aws:appmesh:r:1:mesh/shop/virtualRouter/half'}}}"),
		object("VirtualNode", "broken", "{listeners: [{portMapping: {port: ${PORT}, protocol: http}}]}")+
			object("VirtualNode", "wrong", "{listeners: 1}"))
	want := []string{
		"Mesh shop/shop: complete", "VirtualRouter shop/away: complete", "VirtualRouter shop/half: left out",
		"VirtualService shop/half.example: left out", "VirtualService shop/arn.example: left out",
		"VirtualNode /broken: incomplete", "VirtualNode /wrong: refused",
	}
	if d := cmp.Diff(want, states(r)); d != "" {
		t.Error(d)
	}
	if r.Done() || len(r.Manifests()) != 2 || r.Counts[importer.Unresolved] != 1 {
		t.Errorf("%v %v", r.Manifests(), r.Counts)
	}
	whole := report(importer.Options{}, object("Mesh", "shop", "{}")+object("VirtualRouter", "away", target("elsewhere")))
	if !whole.Done() || whole.Counts[importer.Unresolved] != 1 {
		t.Errorf("%v %v", states(whole), whole.Findings)
	}
}

// What a mesh costs of which much is left out grows as the mesh does.
func TestWhatIsLeftOutIsFoundByTheSameWorkAmongAnyNumberOfObjects(t *testing.T) {
	allocated := func(n int) float64 {
		text := object("Mesh", "shop", "{}")
		for i := range n {
			text += object("VirtualNode", fmt.Sprintf("n%d", i), "{listeners: [{portMapping: {port: ${PORT}, protocol: http}}]}") +
				object("VirtualService", fmt.Sprintf("s%d.example", i), fmt.Sprintf("{provider: {virtualNode: {virtualNodeRef: {name: n%d}}}}", i))
		}
		return testing.AllocsPerRun(1, func() { report(importer.Options{}, text) })
	}
	if few, many := allocated(250), allocated(1000); many > 5*few {
		t.Errorf("%.0f for 250 nodes, %.0f for 1,000", few, many)
	}
}

// As with CloudFormation, where another stack has the mesh.
func TestWhereTheMeshIsInNoFileWhatRefersToWhatIsLeftOutIsLeftOutToo(t *testing.T) {
	for _, ref := range []string{"", "meshRef: {name: shop}, "} {
		r := report(importer.Options{},
			object("VirtualNode", "tcp", "{"+ref+"listeners: [{portMapping: {port: ${PORT}, protocol: http}}]}")+
				object("VirtualService", "of.tcp", "{"+ref+"provider: {virtualNode: {virtualNodeRef: {name: tcp}}}}")+
				object("VirtualService", "arn.tcp", "{"+ref+"provider: {virtualNode: {virtualNodeARN: 'arn:aws:appmesh:r:1:mesh/shop/virtualNode/tcp'}}}")+
				object("VirtualNode", "front", "{"+ref+"backends: [{virtualService: {virtualServiceRef: {name: of.tcp}}}]}")+
				object("VirtualNode", "good", "{"+ref+"backends: [{virtualService: {virtualServiceRef: {name: of.others}}}]}"))
		state := map[string]importer.State{}
		for _, o := range r.Objects {
			state[o.Name] = o.State
		}
		for name, want := range map[string]importer.State{"tcp": importer.Incomplete, "of.tcp": importer.Dependent, "front": importer.Dependent, "good": importer.Complete} {
			if state[name] != want {
				t.Errorf("%s: %s, want %s", name, state[name], want)
			}
		}
		if ref != "" && state["arn.tcp"] != importer.Dependent {
			t.Errorf("arn.tcp: %s", state["arn.tcp"])
		}
		meshes := 0
		for _, f := range r.Findings {
			if strings.Contains(f.Text, "does not exist; there") {
				t.Error(f)
			}
			if f.Outcome == importer.Unresolved && strings.Contains(f.Text, "among the files") {
				meshes++
			}
		}
		if meshes != 1 {
			t.Errorf("%d findings of the mesh: %v", meshes, r.Findings)
		}
		if r.Resolved(); r.Counts[importer.Unresolved] != 0 || strings.Contains(fmt.Sprint(r.Findings), "among the files") {
			t.Error(r.Findings)
		}
	}
}

// What the files leave no doubt of is said where they are applied: a server may have another mesh,
// and another gateway of this one.
func TestManifestsNameTheMeshAndTheGatewayThatTheyWereTakenFor(t *testing.T) {
	r := report(importer.Options{}, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {awsName: shop-prod}\n"+
		object("VirtualService", "s", "{}")+
		object("VirtualGateway", "g", "{listeners: [{portMapping: {port: 80, protocol: http}}]}")+
		object("GatewayRoute", "r", "{httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}"))
	for _, m := range r.Manifests() {
		if text := string(m.Content); m.Object.Kind != "Mesh" && !strings.Contains(text, "meshRef:\n    name: shop\n") ||
			m.Object.Kind == "GatewayRoute" && !strings.Contains(text, "virtualGatewayRef:\n    name: g\n") {
			t.Errorf("a server with another mesh could not tell of which this is:\n%s", text)
		}
	}
	if n := len(r.Manifests()); n != 4 {
		t.Errorf("%d manifests of 4", n)
	}
	for _, m := range report(importer.Options{}, object("VirtualNode", "n", "{}")).Manifests() {
		if strings.Contains(string(m.Content), "meshRef") {
			t.Errorf("a mesh is named that no file has:\n%s", m.Content)
		}
	}
}

func TestOfTwoObjectsOfOneNameTheSecondIsRefused(t *testing.T) {
	r := report(importer.Options{}, object("Mesh", "shop", "{}")+object("VirtualNode", "a", "{}"), object("VirtualNode", "b", "{awsName: a}")+object("VirtualNode", "a", "{}"))
	want := []string{"Mesh shop/shop: complete", "VirtualNode shop/a: complete", "VirtualNode shop/a: refused", "VirtualNode shop/a: refused"}
	if d := cmp.Diff(want, states(r)); d != "" {
		t.Error(d, r.Findings)
	}
}

// Two environments' manifests in one folder: each round of the whole left one object out.
func TestObjectsThatAreGivenTwiceAreRefusedByOneLook(t *testing.T) {
	const item = `{"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": "shop"}, "spec": {}}`
	for what, c := range map[string]struct {
		n    int
		text string
	}{
		"documents":   {3000, strings.Repeat(object("Mesh", "shop", "{}"), 3000)},
		"in one line": {1000, `{"apiVersion": "v1", "kind": "List", "items": [` + strings.Repeat(item+",", 999) + item + "]}"},
	} {
		begun := cpu(t)
		r := report(importer.Options{}, c.text)
		refused := 0
		for i, o := range r.Objects {
			if o.State == importer.Refused {
				refused++
			} else if i != 0 {
				t.Fatalf("%s: the object %d is %s", what, i, o.State)
			}
		}
		if took := cpu(t) - begun; refused != c.n-1 || took > time.Duration(c.n)*3*time.Millisecond {
			t.Errorf("%s: %d of %d refused in %s", what, refused, c.n, took)
		}
	}
}

// cpu is what this process has used of processors.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Messages have no mesh in an object's name.
func TestWhatIsWrongIsOfTheObjectWhereItStands(t *testing.T) {
	const backend = "{virtualService: {virtualServiceRef: {name: api}}}"
	node := func(mesh, backends string) string {
		return object("VirtualService", "api", "{meshRef: {name: "+mesh+"}}") + object("VirtualNode", "web", "{meshRef: {name: "+mesh+"}, backends: ["+backends+"]}")
	}
	r := report(importer.Options{}, object("Mesh", "one", "{}")+object("Mesh", "two", "{}")+node("one", backend+", "+backend)+node("two", backend))
	if got := strings.Join(states(r), "; "); !strings.Contains(got, "VirtualNode one/web: refused") || !strings.Contains(got, "VirtualNode two/web: complete") {
		t.Error(got, r.Findings)
	}
}

func TestWhatBelongsToAMeshThatIsLeftOutIsLeftOut(t *testing.T) {
	r := report(importer.Options{}, object("Mesh", "${NAME}", "{}")+object("VirtualNode", "a", "{}"))
	if d := cmp.Diff([]string{"Mesh /${NAME}: incomplete", "VirtualNode /a: left out"}, states(r)); d != "" {
		t.Error(d)
	}
}

// No host is called $NAME: what waits for a value is not served.
func TestAPlaceholderInThePlaceOfAHostIsWaitedFor(t *testing.T) {
	for discovery, state := range map[string]importer.State{
		"dns: {hostname: $HOST}":                                      importer.Incomplete,
		"dns: {hostname: \"web.${NS}\"}":                              importer.Incomplete,
		"awsCloudMap: {namespaceName: \"${NS}\", serviceName: web}":   importer.Incomplete,
		"awsCloudMap: {namespaceName: shop, serviceName: '{{ .X }}'}": importer.Incomplete,
		"dns: {hostname: web.example}":                                importer.Complete,
	} {
		r := report(importer.Options{}, object("Mesh", "shop", "{}")+object("VirtualNode", "a", "{listeners: [{portMapping: {port: 80, protocol: http}}], serviceDiscovery: {"+discovery+"}}"))
		if o := r.Objects[len(r.Objects)-1]; o.State != state {
			t.Errorf("%s: %s, %v", discovery, o.State, r.Findings)
		}
	}
}

func TestTheFormOfAFileIsToldByItsContent(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Pod\n":                      "crd",
		`{"apiVersion": "appmesh.k8s.aws/v1beta2"}`:        "crd",
		"AWSTemplateFormatVersion: 2010-09-09\n":           "cfn",
		"Resources:\n  A:\n    Type: AWS::AppMesh::Mesh\n": "cfn",
		`{"spec": {}}`:                                            "aws",
		`{"virtualNode": {"meshName": "m"}}`:                      "aws",
		`{"version": 4, "terraform_version": "1.5.0"}`:            "terraform",
		"resource \"aws_appmesh_mesh\" \"m\" {\n}\n":              "Terraform's configuration",
		`{"@type": "type.googleapis.com/envoy.admin.v3.Bootstrap`: "envoy",
		"services: {}\n":                                          "nothing of App Mesh",
		" \n":                                                     "is empty",
		"spec:\n  listeners:\n - port: 80\n":                      "line 3, column 2: ",
		"{\"listeners\": [}":                                      "line 1, column ",
	} {
		f := report(importer.Options{}, text).Files[0]
		if got := string(f.Form) + f.Why; !strings.Contains(got, want) {
			t.Errorf("%q: %q, not %s", text, got, want)
		}
	}
}

func TestATemplateWithActionsIsToBeRenderedFirst(t *testing.T) {
	r := report(importer.Options{}, "{{- if .Values.on }}\n"+object("Mesh", "shop", "{}")+"{{- end }}\n")
	if r.Done() || len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Text, "helm template") {
		t.Error(r.Findings)
	}
}

func TestValuesThatNoPlaceholderHasAreNamed(t *testing.T) {
	r := report(importer.Options{Values: map[string]string{"MESH": "shop", "MESHES": "x"}}, object("Mesh", "${MESH}", "{}"))
	if d := cmp.Diff([]string{"MESHES"}, r.Unused); d != "" || len(r.Unfilled) > 0 {
		t.Error(d, r.Unfilled)
	}
}

// Whatever a file has, each object is in one state, what leaves is what apply reads, and
// every place is one of the file.
func FuzzRead(f *testing.F) {
	f.Add(object("Mesh", "${M}", "{}")+object("VirtualNode", "a", "{listeners: [{portMapping: {port: {{ .P }}, protocol: http}}]}"), "M", "shop")
	f.Add(`{"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "Mesh", "metadata": {"name": $M}}`, "M", "x\ny")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		if len(text) > 1<<16 || len(value) > 1<<10 {
			return
		}
		r := report(importer.Options{Values: map[string]string{name: value}}, text)
		lines := strings.Count(text, "\n") + 1
		for _, finding := range r.Findings {
			if finding.Line > lines {
				t.Errorf("%s is in none of %d lines", finding, lines)
			}
		}
		for _, m := range r.Manifests() {
			again := report(importer.Options{}, string(m.Content))
			if len(again.Objects) != 1 || string(again.Objects[0].Encode()) != string(m.Content) {
				t.Errorf("%s reads back as %v", m.Content, again.Objects)
			}
		}
	})
}
