package mesh_test

import (
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/proxy"
)

func annotated(kind, key, value string) string {
	return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata:\n  name: m\n  annotations:\n    " + key + ": \"" + value + "\"\n"
}

func TestAMeshNamesWhatItLetsThroughAndIsWarned(t *testing.T) {
	r := parseOne(t, annotated("Mesh", proxy.UnsafeAnnotation, "method-headers, query-semicolons"))
	text := r.Encode() // as stored, and read back
	g, err := mesh.NewGraph([]*mesh.Resource{parseOne(t, string(text))})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{proxy.UnsafeMethodHeaders: true, proxy.UnsafeQuerySemicolons: true, proxy.UnsafeHostHeaders: false} {
		if g.Unsafe("m", name) != want || g.Unsafe("other", name) {
			t.Errorf("%s: %v", name, g.Unsafe("m", name))
		}
	}
	var said []string
	for _, w := range mesh.Warnings(r) {
		said = append(said, w.Error())
	}
	if all := strings.Join(said, "\n"); len(said) != 2 || !strings.Contains(all, "unsafe: method-headers: ") || !strings.Contains(all, "unsafe: query-semicolons: ") {
		t.Errorf("warnings: %q", said)
	}
}

func TestAnAnnotationOfOursThatWouldDoNothingIsRefused(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{annotated("Mesh", proxy.UnsafeAnnotation, "method-headers, semicolons"), "\"semicolons\" is not known; there are: address-headers, host-headers, method-headers, path-headers, query-semicolons, repeat-any-method, user-headers"},
		{annotated("Mesh", proxy.UnsafeAnnotation, "all"), "is not known"},
		{annotated("Mesh", "signet.example/unsave", "method-headers"), "is not known on a Mesh"},
		{annotated("VirtualNode", proxy.UnsafeAnnotation, "method-headers"), "is not known on a VirtualNode"},
	} {
		docs, err := mesh.Split("m.yaml", []byte(c.content))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.Parse(docs[0]); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "metadata.annotations[") {
			t.Errorf("%s: %v, want %q", c.content, err, c.want)
		}
	}
	parseOne(t, annotated("Mesh", "example.com/unsafe", "x")) // somebody else's
	parseOne(t, annotated("Mesh", proxy.UnsafeAnnotation, ""))
}
