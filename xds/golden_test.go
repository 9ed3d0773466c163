package xds_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/ads"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldenViews(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c := xdstest.Load(t, dir)
			set, err := xds.Build(c.Input, c.Ref(), c.Shape)
			if err != nil {
				t.Fatal(err)
			}
			check := invariants.CheckSet
			if c.Gateway {
				check = invariants.CheckGatewaySet
			}
			for _, v := range check(set) {
				t.Errorf("invariant: %s", v)
			}
			got := render(t, set)
			file := filepath.Join(dir, "want.yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("run make golden and review the difference (-want +got):\n%s", diff)
			}
		})
	}
}

// render writes a set as people read Envoy: YAML with Envoy's field names. A
// large part that stood above in the same file is not written again.
func render(t *testing.T, set *ads.Set) []byte {
	t.Helper()
	var out []byte
	seen := map[string]bool{}
	for _, typeURL := range []string{ads.ListenerType, ads.RouteType, ads.ClusterType, ads.EndpointType} {
		for _, r := range set.Type(typeURL) {
			m, err := invariants.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			j, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			y, err := yaml.Marshal(brief(t, seen, decode(t, j)))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, "---\n# "+typeURL+"\n"...)
			out = append(out, y...)
		}
	}
	return out
}

// decode keeps integers: protojson varies its white space, so its text is no use.
func decode(t *testing.T, j []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(j))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

const large = 300

func brief(t *testing.T, seen map[string]bool, v any) any {
	t.Helper()
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return i
		}
		return n.String()
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) >= large {
		if seen[string(text)] {
			return "(as above)"
		}
		seen[string(text)] = true
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			v[k] = brief(t, seen, v[k])
		}
	case []any:
		for i := range v {
			v[i] = brief(t, seen, v[i])
		}
	}
	return v
}
