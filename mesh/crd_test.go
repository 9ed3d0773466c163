package mesh_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"signet.example/mesh"
)

// schema is the part of openAPIV3Schema that the CRDs use.
type schema struct {
	Type       string             `yaml:"type"`
	Properties map[string]*schema `yaml:"properties"`
	Items      *schema            `yaml:"items"`
	Required   []string           `yaml:"required"`
	Enum       []string           `yaml:"enum"`
	Minimum    *int64             `yaml:"minimum"`
	Maximum    *int64             `yaml:"maximum"`
	MinLength  *int               `yaml:"minLength"`
	MaxLength  *int               `yaml:"maxLength"`
	MinItems   *int               `yaml:"minItems"`
	MaxItems   *int               `yaml:"maxItems"`
}

func specSchema(t *testing.T, file string) *schema {
	t.Helper()
	content, err := os.ReadFile(shared(t, "appmesh", "crds", file))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPIV3Schema schema `yaml:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name == "v1beta2" {
			return v.Schema.OpenAPIV3Schema.Properties["spec"]
		}
	}
	t.Fatalf("%s has no v1beta2", file)
	return nil
}

// Where our constraint is on purpose not the CRD's. The reasons stand beside
// the fields.
var looser = []string{".meshRef.uid required", ".virtualGatewayRef.uid required", ".meshServiceDiscovery.ipPreference enum"}

// The API has these, and CRDs never had: a mesh written against the API can be written here.
var notInCRDs = []string{".awsCloudMap.ipPreference", ".dns.ipPreference"}

func TestTypesHaveEveryFieldAndConstraintOfTheCRDs(t *testing.T) {
	fields := 0
	for file, spec := range map[string]any{
		"meshes": mesh.MeshSpec{}, "virtualnodes": mesh.VirtualNodeSpec{}, "virtualservices": mesh.VirtualServiceSpec{},
		"virtualrouters": mesh.VirtualRouterSpec{}, "virtualgateways": mesh.VirtualGatewaySpec{},
		"gatewayroutes": mesh.GatewayRouteSpec{}, "backendgroups": mesh.BackendGroupSpec{},
	} {
		c := &crdCheck{t: t}
		c.object(file+": spec", specSchema(t, "appmesh.k8s.aws_"+file+".yaml"), reflect.TypeOf(spec))
		fields += c.fields
	}
	if fields < 500 {
		t.Errorf("only %d fields were compared", fields)
	}
}

type crdCheck struct {
	t      *testing.T
	fields int
}

func (c *crdCheck) object(path string, s *schema, typ reflect.Type) {
	if typ.Kind() == reflect.Map {
		return // matchLabels
	}
	ours := map[string]reflect.StructField{}
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if jsonName, _, _ := strings.Cut(f.Tag.Get("json"), ","); jsonName != name {
			c.t.Errorf("%s.%s: json calls it %q", path, name, jsonName)
		}
		ours[name] = f
		known := slices.ContainsFunc(notInCRDs, func(p string) bool { return strings.HasSuffix(path+"."+name, p) })
		if s.Properties[name] == nil && !known {
			c.t.Errorf("%s.%s: the CRD has no such field", path, name)
		}
	}
	for name, sub := range s.Properties {
		at := path + "." + name
		f, ok := ours[name]
		if !ok {
			c.t.Errorf("%s: is in the CRD but not in %s", at, typ)
			continue
		}
		c.fields++
		words := wordsOf(f.Tag.Get("check"))
		if slices.Contains(s.Required, name) && words["required"] == "" {
			c.differs(at + " required")
		}
		c.value(at, sub, f.Type, words, "")
	}
}

func (c *crdCheck) value(path string, s *schema, typ reflect.Type, words map[string]string, each string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := map[string][]reflect.Kind{
		"object": {reflect.Struct, reflect.Map}, "array": {reflect.Slice}, "string": {reflect.String},
		"boolean": {reflect.Bool}, "integer": {reflect.Int64, reflect.Uint32},
	}[s.Type]
	if !slices.Contains(want, typ.Kind()) {
		c.t.Errorf("%s: the CRD has %s, we have %s", path, s.Type, typ)
		return
	}
	c.constraints(path, s, words, each)
	switch s.Type {
	case "object":
		c.object(path, s, typ)
	case "array":
		c.value(path+"[]", s.Items, typ.Elem(), words, "each.")
	}
}

// constraints: ours may be stricter (the API model's), never looser.
func (c *crdCheck) constraints(path string, s *schema, words map[string]string, each string) {
	low := func(given *int64, word string) {
		if given != nil && words[each+word] == "" || given != nil && atoi(words[each+word]) < *given {
			c.differs(fmt.Sprintf("%s %s %d, ours %q", path, word, *given, words[each+word]))
		}
	}
	low(s.Minimum, "min")
	if s.Maximum != nil && (words[each+"max"] == "" || atoi(words[each+"max"]) > *s.Maximum) {
		c.differs(fmt.Sprintf("%s max %d", path, *s.Maximum))
	}
	c.bounds(path, "len", s.MinLength, s.MaxLength, words[each+"len"])
	c.bounds(path, "items", s.MinItems, s.MaxItems, words["items"])
	if len(s.Enum) > 0 {
		ours := strings.Split(words[each+"enum"], ",")
		slices.Sort(ours)
		slices.Sort(s.Enum)
		if !slices.Equal(ours, s.Enum) {
			c.differs(path + " enum")
		}
	}
}

func (c *crdCheck) bounds(path, word string, low, high *int, ours string) {
	a, b, _ := strings.Cut(ours, "..")
	if low != nil && *low > 0 && (a == "" || atoi(a) < int64(*low)) {
		c.differs(fmt.Sprintf("%s %s at least %d", path, word, *low))
	}
	if high != nil && (b == "" || atoi(b) > int64(*high)) {
		c.differs(fmt.Sprintf("%s %s at most %d", path, word, *high))
	}
}

func (c *crdCheck) differs(what string) {
	for _, known := range looser {
		if strings.HasSuffix(what, known) {
			return
		}
	}
	c.t.Errorf("%s: is not kept", what)
}

func wordsOf(tag string) map[string]string {
	out := map[string]string{}
	for w := range strings.FieldsSeq(tag) {
		name, arg, ok := strings.Cut(w, "=")
		if !ok {
			arg = "yes"
		}
		out[name] = arg
	}
	return out
}

func atoi(s string) int64 {
	var n int64
	_, _ = fmt.Sscan(s, &n)
	return n
}
