package mesh_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"signet.example/mesh"
)

// The walkthroughs touch half of the model's fields; this touches all of them.
func TestAnyValidResourceReadsBackEqual(t *testing.T) {
	seeds := uint64(40)
	if os.Getenv("SOAK") == "1" {
		seeds = 4000
	}
	for _, k := range mesh.Kinds() {
		for seed := range seeds {
			spec := generator{rand.New(rand.NewPCG(seed, 7))}.spec(k.Kind)
			input := object(string(k.Kind), "n") + mesh.SpecYAML(spec)
			r := parseOne(t, input)
			out := r.Encode()
			again := parseOne(t, string(out))
			if d := diff(r, again); d != "" {
				t.Fatalf("seed %d:\n%s", seed, d)
			}
			readBack(t, input, []*mesh.Resource{r})
			if t.Failed() {
				t.Fatalf("seed %d:\n%s\ncame back as\n%s", seed, input, out)
			}
		}
	}
}

func TestManifestKeepsMetadataAndIsCanonical(t *testing.T) {
	r := parseOne(t, `{"kind": "Mesh", "apiVersion": "appmesh.k8s.aws/v1beta2", "metadata": {"labels": {"b": "yes", "a": "x"}, "annotations": {"n": "1"}, "name": "m"}}`)
	want := `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata:
  name: m
  labels:
    a: x
    b: "yes"
  annotations:
    "n": "1"
spec:
  awsName: m
  egressFilter:
    type: DROP_ALL
`
	got := r.Encode()
	if d := diff(want, string(got)); d != "" {
		t.Error(d)
	}
}
