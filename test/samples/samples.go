// Package samples makes App Mesh's own walkthroughs fit to be applied: their
// placeholders filled, what they take for granted elsewhere added. The parser's
// tests and the stories of the whole mesh judge the same five.
//
// Five lists them; Documents and Leaves flatten YAML by another reader than
// ours, for comparing what was written with what is read back.
package samples

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"signet.example/test/parts"
)

// Sample is one walkthrough.
type Sample struct {
	// File below the shared appmesh/samples.
	File string
	// Strip is what Stripped leaves out: a line that the CRD does not know, and
	// after it what says where it stands. Empty where there is none.
	Strip string

	fill map[string]string
	add  string
}

const howto = "howto-k8s-"

// Five are App Mesh walkthroughs of the CRD form that tests know by name.
func Five() []Sample {
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
	return []Sample{
		{
			File: "blog-eks-canary-deployments-pipeline__microservices_yelb-ui_specfiles_kubernetes_template.yml", fill: yelb,
			add: "\n---\n" + "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: yelb}\nspec: {}\n" +
				inYelb("VirtualNode", "yelb-ui", "{listeners: [{portMapping: {port: 80, protocol: http}}]}") +
				inYelb("VirtualService", "yelb-appserver", "{}"),
		},
		{File: howto + "timeout-policy__v1beta2_manifest.yaml.template", fill: app},
		{File: howto + "egress__v1beta2_manifest.yaml.template", fill: app},
		{
			File: howto + "cross-cluster__v1beta2_cluster1.yaml.template",
			fill: merge(app, map[string]string{"colorapp-service-ARN": "arn:aws:appmesh:eu-west-1:111122223333:mesh/walk/virtualService/colorapp.app"}),
			add:  "\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: colorapp, namespace: app}\n",
		},
		{File: howto + "mtls-sds-based__v1beta2_manifest.yaml.template", fill: app, Strip: "        mode: STRICT\n        certificate:\n          sds:\n            secretName: spiffe://example.org/walk/front\n"},
	}
}

func merge(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// Placeholder is how the walkthroughs name what a reader must fill in.
var Placeholder = regexp.MustCompile(`\$\{(\w+)\}|\{\{ ?\.(\w+) ?\}\}`)

// Content of the file, ready to be applied.
func (s Sample) Content(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(parts.Shared(t, "appmesh", "samples", s.File))
	if err != nil {
		t.Fatal(err)
	}
	text := Placeholder.ReplaceAllStringFunc(string(raw), func(p string) string {
		name := strings.Trim(p, "${}. ")
		value, ok := s.fill[name]
		if !ok {
			t.Fatalf("%s: nothing to put in for %s", s.File, p)
		}
		return value
	})
	if arn, ok := s.fill["colorapp-service-ARN"]; ok {
		text = strings.ReplaceAll(text, "colorapp-service-ARN", arn)
	}
	return text + s.add
}

// Stripped is Content without the line of Strip.
func (s Sample) Stripped(t testing.TB) (content, line string) {
	t.Helper()
	line, without, _ := strings.Cut(s.Strip, "\n")
	whole := s.Content(t)
	content = strings.Replace(whole, s.Strip, without, 1)
	if content == whole {
		t.Fatalf("%s: nothing to strip", s.File)
	}
	return content, strings.TrimSpace(line)
}

// Defaults are the defaults that a manifest gains; nothing else may differ.
var Defaults = regexp.MustCompile(`^spec\.(awsName|meshRef\.name|virtualGatewayRef\.name|egressFilter\.type|listeners\[\d+\]\.healthCheck\.port|serviceDiscovery\.dns\.responseType|(backendDefaults|backends\[\d+\]\.virtualService)\.clientPolicy\.tls\.enforce)$`)

// Documents flattens each document of a YAML stream, by kind/name.
func Documents(t testing.TB, content string) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for text := range strings.SplitSeq(content, "\n---") {
		if fields := Leaves(t, text); fields["kind"] != "" {
			out[fields["kind"]+"/"+fields["metadata.name"]] = fields
		}
	}
	return out
}

// Leaves flattens YAML into paths and printed values.
func Leaves(t testing.TB, text string) map[string]string {
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
