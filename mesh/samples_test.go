package mesh_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
)

// sample is one of App Mesh's own walkthroughs: its placeholders filled, and
// with what it takes for granted elsewhere added.
type sample struct {
	file  string
	fill  map[string]string
	add   string
	strip string // a line that the CRD does not know, for the second run
}

const howto = "howto-k8s-"

func samples() []sample {
	app := map[string]string{
		"APP_NAMESPACE": "app", "MESH_NAME": "walk", "CLOUDMAP_NAMESPACE": "walk.local",
		"FRONT_APP_IMAGE": "front:1", "COLOR_APP_IMAGE": "color:1",
		"FRONTEND_APP_SVID": "spiffe://example.org/walk/front", "SVID_CA_TRUST_DOMAIN": "spiffe://example.org",
		"COLORAPP_BLUE_SVID": "spiffe://example.org/walk/blue", "COLORAPP_RED_SVID": "spiffe://example.org/walk/red",
		"COLORAPP_GREEN_SVID": "spiffe://example.org/walk/green",
	}
	yelb := map[string]string{
		"MICROSERVICE_NAME": "yelb-ui", "CANARY_VERSION": "v2", "KUBERNETES_NAMESPACE": "yelb", "CONTAINER_IMAGE": "ui:2",
		"CANARY_ROUTES": "{virtualNodeRef: {name: yelb-ui-v2}, weight: 10}, {virtualNodeRef: {name: yelb-ui}, weight: 90}",
	}
	inYelb := func(kind, name, spec string) string {
		return "\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: yelb}\nspec: " + spec
	}
	return []sample{
		{
			file: "blog-eks-canary-deployments-pipeline__microservices_yelb-ui_specfiles_kubernetes_template.yml", fill: yelb,
			add: "\n---\n" + manifest("Mesh", "yelb") +
				inYelb("VirtualNode", "yelb-ui", "{listeners: [{portMapping: {port: 80, protocol: http}}]}") +
				inYelb("VirtualService", "yelb-appserver", "{}"),
		},
		{file: howto + "timeout-policy__v1beta2_manifest.yaml.template", fill: app},
		{file: howto + "egress__v1beta2_manifest.yaml.template", fill: app},
		{
			file: howto + "cross-cluster__v1beta2_cluster1.yaml.template",
			fill: merge(app, map[string]string{"colorapp-service-ARN": "arn:aws:appmesh:eu-west-1:111122223333:mesh/walk/virtualService/colorapp.app"}),
			add:  "\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: colorapp, namespace: app}\n",
		},
		{file: howto + "mtls-sds-based__v1beta2_manifest.yaml.template", fill: app, strip: "        mode: STRICT\n        certificate:\n          sds:\n            secretName: spiffe://example.org/walk/front\n"},
	}
}

func merge(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

var placeholder = regexp.MustCompile(`\$\{(\w+)\}|\{\{ ?\.(\w+) ?\}\}`)

func (s sample) content(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(shared(t, "appmesh", "samples", s.file))
	if err != nil {
		t.Fatal(err)
	}
	text := placeholder.ReplaceAllStringFunc(string(raw), func(p string) string {
		name := strings.Trim(p, "${}. ")
		value, ok := s.fill[name]
		if !ok {
			t.Fatalf("%s: nothing to put in for %s", s.file, p)
		}
		return value
	})
	if arn, ok := s.fill["colorapp-service-ARN"]; ok {
		text = strings.ReplaceAll(text, "colorapp-service-ARN", arn)
	}
	return text + s.add
}

// verdict is the golden table's row: "applied", or what is refused by field.
func verdict(t *testing.T, content string) (table []string, applied []*mesh.Resource) {
	t.Helper()
	docs, err := mesh.Split("", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	foreign, refused := 0, false
	for _, d := range docs {
		if d.Foreign() {
			foreign++
			continue
		}
		r, err := mesh.Parse(d)
		errs := mesh.AsErrors(err)
		if err == nil {
			errs = mesh.Unsupported(r)
			applied = append(applied, r)
		}
		row := "applied"
		if len(errs) > 0 {
			row, refused = "refused: "+strings.Join(fieldsOf(errs), ", "), true
		}
		table = append(table, fmt.Sprintf("%s %s: %s", d.Kind, d.Name, row))
	}
	whole := "=> refused" // a call is applied whole or not at all
	if !refused {
		graphOf(t, applied)
		whole = "=> applied"
	}
	return append(table, fmt.Sprintf("%s; %d of other groups", whole, foreign)), applied
}

func TestWalkthroughsAreAppliedOrRefusedByField(t *testing.T) {
	var got strings.Builder
	for _, s := range samples() {
		content := s.content(t)
		table, applied := verdict(t, content)
		fmt.Fprintf(&got, "# %s\n%s\n\n", s.file, strings.Join(table, "\n"))
		readBack(t, content, applied)
		if s.strip == "" {
			continue
		}
		_, without, _ := strings.Cut(s.strip, "\n")
		if content = strings.Replace(content, s.strip, without, 1); content == s.content(t) {
			t.Fatalf("%s: nothing to strip", s.file)
		}
		table, applied = verdict(t, content)
		first, _, _ := strings.Cut(s.strip, "\n")
		fmt.Fprintf(&got, "# %s without the client policy's %q\n%s\n\n", s.file, strings.TrimSpace(first), strings.Join(table, "\n"))
		readBack(t, content, applied)
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

// shown are the defaults that a manifest gains; nothing else may differ.
var shown = regexp.MustCompile(`^spec\.(awsName|egressFilter\.type|listeners\[\d+\]\.healthCheck\.port|serviceDiscovery\.dns\.responseType|(backendDefaults|backends\[\d+\]\.virtualService)\.clientPolicy\.tls\.enforce)$`)

// readBack compares what was written with what comes back, field by field, by
// another reader than ours.
func readBack(t *testing.T, content string, applied []*mesh.Resource) {
	t.Helper()
	inputs := map[string]map[string]string{}
	for _, text := range strings.Split(content, "\n---") {
		fields := leaves(t, text)
		inputs[fields["kind"]+"/"+fields["metadata.name"]] = fields
	}
	for _, r := range applied {
		out, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		in, back := inputs[string(r.Kind)+"/"+r.ObjectName], leaves(t, string(out))
		for path, value := range in {
			if back[path] != value {
				t.Errorf("%s %s: %s was %q, came back %q", r.Kind, r.ObjectName, path, value, back[path])
			}
		}
		for path := range back {
			if _, ok := in[path]; !ok && !shown.MatchString(path) {
				t.Errorf("%s %s: %s came from nowhere", r.Kind, r.ObjectName, path)
			}
		}
	}
}

// leaves flattens YAML into paths and printed values.
func leaves(t *testing.T, text string) map[string]string {
	t.Helper()
	var root any
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, m := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), m)
			}
		case []any:
			for i, m := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), m)
			}
		default:
			out[path] = fmt.Sprintf("%T %v", v, v)
			if path == "kind" || path == "metadata.name" {
				out[path] = fmt.Sprint(v)
			}
		}
	}
	walk("", root)
	return out
}

// Every CRD walkthrough, not only the five of the table, is understood; the
// golden file lists the few that are not App Mesh's form, or still templates.
func TestEveryCRDSampleIsReadable(t *testing.T) {
	entries, err := os.ReadDir(shared(t, "appmesh", "samples"))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	var got strings.Builder
	for _, e := range entries {
		raw, err := os.ReadFile(shared(t, "appmesh", "samples", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), "apiVersion: "+mesh.GroupVersion) {
			continue
		}
		files++
		docs, err := mesh.Split(e.Name(), []byte(placeholder.ReplaceAllString(string(raw), "x")))
		if err != nil {
			fmt.Fprintln(&got, err)
		}
		for _, d := range docs {
			if d.Foreign() {
				continue
			}
			if _, err := mesh.Parse(d); err != nil {
				fmt.Fprintln(&got, err)
			}
		}
	}
	if files < 19 {
		t.Errorf("read %d files, want 19", files)
	}
	golden(t, "testdata/unreadable.golden", got.String())
}
