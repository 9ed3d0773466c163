package crd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/crd"
	"signet.example/mesh/placeholder"
)

func read(t *testing.T, text string, o crd.Options) *dialect.Found {
	t.Helper()
	filled, err := placeholder.Fill(text, placeholder.YAML, nil)
	if err != nil {
		t.Fatal(err)
	}
	return crd.Read(dialect.File{Name: "f.yaml", Content: []byte(filled.Text), Unfilled: filled.Written}, o)
}

// told are the findings but for those that have no text.
func told(found *dialect.Found) []string {
	var lines []string
	for _, f := range slices.Concat(found.Taken, found.Findings) {
		if f.Text != "" {
			lines = append(lines, fmt.Sprintf("%d %s: %s %s", f.Line, f.Path, f.Outcome, f.Text))
		}
	}
	return lines
}

const node = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web}\n"

func TestAFieldThatTheCRDDoesNotHaveIsDroppedAsKubernetesDroppedIt(t *testing.T) {
	found := read(t, node+"spec:\n  podSelector: {matchLabels: {app: web}}\n  portMaping: {port: 1}\nstatus: {x: 1}\n", crd.Options{})
	if len(found.Resources) != 1 {
		t.Fatal(told(found))
	}
	want := []string{
		"5 spec.podSelector: mapped has no effect: Signet knows workloads by their bindings, not by Kubernetes labels",
		"6 spec.portMaping: dropped the CRD does not have this field, and Kubernetes dropped it",
		"7 status: dropped an API server wrote it: it is no part of the object",
		"4 spec.awsName: defaulted is web",
	}
	if d := cmp.Diff(want, told(found)); d != "" {
		t.Error(d)
	}
	if out := string(found.Resources[0].Encode()); !strings.Contains(out, "app: web") || strings.Contains(out, "portMaping") {
		t.Error(out)
	}
}

func TestDocumentsOfOtherKindsAreContextAndListsAreTakenApart(t *testing.T) {
	found := read(t, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {a: 1, a: 2}\n---\n"+
		"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: appmesh.k8s.aws/v1beta2, kind: Mesh, metadata: {name: shop}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n", crd.Options{})
	var context []string
	for _, o := range found.Context {
		context = append(context, o.String())
	}
	if d := cmp.Diff([]string{"Deployment web", "Pod p"}, context); d != "" || len(found.Resources) != 1 {
		t.Error(d, told(found))
	}
}

func TestADefaultNamespaceAndMeshAreThoseOfObjectsThatNameNone(t *testing.T) {
	found := read(t, node+"---\n"+strings.Replace(node, "{name: web}", "{name: web, namespace: own}", 1)+"spec: {meshRef: {name: other}}\n---\n"+
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n", crd.Options{Namespace: "ns", Mesh: "shop"})
	var names []string
	for _, r := range found.Resources {
		names = append(names, string(r.Kind)+" "+r.Mesh+"/"+r.Name)
	}
	if d := cmp.Diff([]string{"VirtualNode shop/web_ns", "VirtualNode other/web_own", "Mesh shop/shop"}, names); d != "" {
		t.Error(d)
	}
}

func TestAPlaceholderWithoutAValueIsATextWhereOneCanStandAndElseItsObjectIsIncomplete(t *testing.T) {
	for _, c := range []struct{ spec, want, outcome string }{
		{"serviceDiscovery: {dns: {hostname: \"web.${NS}\"}}", "spec.serviceDiscovery.dns.hostname", "opaque"},
		{"listeners: [{portMapping: {port: \"${P}\", protocol: http}}]", "spec.listeners[0].portMapping.port", "missing"},
		{"listeners: [{portMapping: {port: 80, protocol: \"${P}\"}}]", "spec.listeners[0].portMapping.protocol", "missing"},
		{"listeners: {{ .LISTENERS }}", "spec.listeners", "missing"},
		{"backends: [{virtualService: {{VS}}}]", "spec.backends[0].virtualService", "missing"},
		{"awsName: \"${N}\"", "spec.awsName", "missing"},
		{"meshRef: {name: \"${N}\"}", "spec.meshRef.name", "missing"},
		{"{{ .KEY }}: 1", "spec", "missing"},
	} {
		found := read(t, node+"spec:\n  "+c.spec+"\n", crd.Options{})
		var got []string
		for _, f := range found.Findings {
			if len(f.Unfilled) > 0 {
				got = append(got, f.Path+" "+string(f.Outcome))
			}
		}
		if d := cmp.Diff([]string{c.want + " " + c.outcome}, got); d != "" {
			t.Errorf("%s: %s %v", c.spec, d, told(found))
		}
		if complete := len(found.Resources) == 1; complete != (c.outcome == "opaque") || len(found.Refused) > 0 {
			t.Errorf("%s: %d complete, %d incomplete, %d refused", c.spec, len(found.Resources), len(found.Incomplete), len(found.Refused))
		}
	}
}

func TestARuleThatIsBrokenRefusesTheObjectByItsField(t *testing.T) {
	found := read(t, node+"spec: {listeners: [{portMapping: {port: 70000, protocol: http}}]}\n", crd.Options{})
	if len(found.Refused) != 1 || len(found.Findings) != 1 || found.Findings[0].Path != "spec.listeners[0].portMapping.port" {
		t.Errorf("%v %v", found.Refused, told(found))
	}
}
