package dialect_test

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/aws"
	"signet.example/mesh/dialect/cloudformation"
	"signet.example/mesh/dialect/terraform"
	"signet.example/test/parts"
)

// shape is a type of the API's model.
type shape struct {
	Type     string
	Required []string
	Members  map[string]struct{ Shape string }
	Member   struct{ Shape string }
	Union    bool
	Enum     []string
	Min, Max *int64
	Pattern  string
}

type model map[string]shape

func readModel(t testing.TB) model {
	t.Helper()
	content, err := os.ReadFile(parts.Shared(t, "appmesh", "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	var whole struct{ Shapes model }
	if err := json.Unmarshal(content, &whole); err != nil {
		t.Fatal(err)
	}
	return whole.Shapes
}

// object is the spec of one of the API's resources.
type object struct {
	kind  mesh.Kind
	shape string
	name  string // the member that has its name
}

var objects = []object{
	{mesh.KindMesh, "MeshSpec", "meshName"},
	{mesh.KindVirtualNode, "VirtualNodeSpec", "virtualNodeName"},
	{mesh.KindVirtualService, "VirtualServiceSpec", "virtualServiceName"},
	{mesh.KindVirtualRouter, "VirtualRouterSpec", "virtualRouterName"},
	{dialect.KindRoute, "RouteSpec", "routeName"},
	{mesh.KindVirtualGateway, "VirtualGatewaySpec", "virtualGatewayName"},
	{mesh.KindGatewayRoute, "GatewayRouteSpec", "gatewayRouteName"},
}

// site is one member somewhere in a spec, or one item of a list.
type site struct {
	steps  []string // "listeners", "[0]", "portMapping", …
	shape  string
	parent shape // of a member
	item   bool
}

func (s site) path() string {
	return strings.ReplaceAll("spec."+strings.Join(s.steps, "."), ".[", "[")
}

// sites are all that a spec can have, each once.
func (m model) sites(of string) []site {
	var out []site
	var visit func(of string, steps []string)
	visit = func(of string, steps []string) {
		s := m[of]
		switch s.Type {
		case "structure":
			for _, name := range slices.Sorted(maps.Keys(s.Members)) {
				at := append(slices.Clone(steps), name)
				out = append(out, site{steps: at, shape: s.Members[name].Shape, parent: s})
				visit(s.Members[name].Shape, at)
			}
		case "list":
			at := append(slices.Clone(steps), "[0]")
			out = append(out, site{steps: at, shape: s.Member.Shape, item: true})
			visit(s.Member.Shape, at)
		}
	}
	visit(of, nil)
	return out
}

// prose are unions that the API's documentation has in words.
var prose = []string{"HttpPathMatch", "GatewayRouteHostnameMatch", "HttpGatewayRoutePrefixRewrite", "RouteSpec", "GatewayRouteSpec"}

// also are members that others or the documentation's words need, by structure; with a
// colon, where the member before it is given.
var also = map[string][]string{
	"Duration":              {"unit", "value"},
	"GrpcGatewayRouteMatch": {"serviceName"},
	"GrpcRetryPolicy":       {"tcpRetryEvents"},
	"GrpcRouteMatch":        {"methodName:serviceName"},
	"HttpRetryPolicy":       {"tcpRetryEvents"},
}

// make makes a value of a shape that has what steps lead to, and else what is needed.
func (m model) make(of, name string, steps []string) any {
	s := m[of]
	var rest []string
	if len(steps) > 0 {
		rest = steps[1:]
	}
	switch {
	case s.Type == "structure":
		return m.structure(of, steps)
	case s.Type == "list":
		return []any{m.make(s.Member.Shape, name, rest)}
	case s.Type == "boolean":
		return true
	case name == "port":
		return 8080
	case name == "end":
		return 2
	case s.Type != "string":
		if s.Min != nil {
			return max(*s.Min, 1)
		}
		return 1
	case len(s.Enum) > 0:
		return s.Enum[0]
	case name == "prefix" || name == "path" || name == "exact" || of == "HttpGatewayRoutePrefix":
		return "/a"
	case name == "httpRetryEvents":
		return "server-error"
	}
	return "a"
}

func (m model) structure(of string, steps []string) map[string]any {
	s, out := m[of], map[string]any{}
	add := func(name string, steps []string) {
		if out[name] == nil {
			out[name] = m.make(s.Members[name].Shape, name, steps)
		}
	}
	if len(steps) > 0 {
		add(steps[0], steps[1:])
	}
	for _, name := range s.Required {
		add(name, nil)
	}
	for _, name := range also[of] {
		if given, needs, ok := strings.Cut(name, ":"); !ok {
			add(name, nil)
		} else if out[given] != nil {
			add(needs, nil)
		}
	}
	switch {
	case (s.Union || slices.Contains(prose, of)) && (len(out) == 0 || len(out) == 1 && out["priority"] != nil):
		add(slices.Sorted(maps.Keys(s.Members))[0], nil)
	case (of == "HttpRouteMatch" || of == "HttpGatewayRouteMatch") && out["path"] == nil:
		add("prefix", nil)
	}
	if action, ok := out["action"].(map[string]any); ok && of == "HttpGatewayRoute" {
		if rewrite, ok := action["rewrite"].(map[string]any); ok && rewrite["path"] != nil { // AM-crossfield: of a match by path
			out["match"] = map[string]any{"path": map[string]any{"exact": "/a"}}
		}
	}
	for _, name := range []string{"timeout", "connectionPool"} {
		if by, ok := out[name].(map[string]any); ok && out["portMapping"] != nil {
			out["portMapping"].(map[string]any)["protocol"] = slices.Collect(maps.Keys(by))[0]
		}
	}
	return out
}

// form is one of the forms in which the API's structures are written.
type form struct {
	name  string
	read  dialect.Reader
	files func(o object, spec any) []any // the last one has the object, the others the router of a route
	path  func(string) string            // nil where what is zero is not there, so that not every constraint can be violated
}

var forms = []form{
	{"aws", aws.Read, awsFiles, func(path string) string { return path }},
	{"cloudformation", cloudformation.Read, templates, func(path string) string {
		return "Resources.X.Properties." + dialect.CloudFormation.Path(path)
	}},
	{"terraform", terraform.Read, states, nil},
}

// written are the forms that are written, too.
var written = forms[:2]

func awsFiles(o object, spec any) []any {
	whole := map[string]any{"meshName": "m", o.name: "n", "spec": spec}
	switch o.kind {
	case dialect.KindRoute:
		whole["virtualRouterName"] = "r"
		return []any{map[string]any{"meshName": "m", "virtualRouterName": "r", "spec": routerSpec}, whole}
	case mesh.KindGatewayRoute:
		whole["virtualGatewayName"] = "g"
	}
	return []any{whole}
}

var routerSpec = map[string]any{"listeners": []any{map[string]any{"portMapping": map[string]any{"port": 8080, "protocol": "http"}}}}

func templates(o object, spec any) []any {
	resource := func(o object, spec any) any {
		properties := awsFiles(o, spec)
		return map[string]any{"Type": "AWS::AppMesh::" + string(o.kind), "Properties": spelled(properties[len(properties)-1])}
	}
	resources := map[string]any{"X": resource(o, spec)}
	if o.kind == dialect.KindRoute {
		resources["R"] = resource(objects[3], routerSpec)
		resources["R"].(map[string]any)["Properties"].(map[string]any)["VirtualRouterName"] = "r"
	}
	return []any{map[string]any{"Resources": resources}}
}

func states(o object, spec any) []any {
	attributes := map[string]any{"name": "n", "mesh_name": "m", "mesh_owner": "1", "id": "i", "tags": map[string]any{}, "spec": []any{blocks(spec)}}
	resources := []any{
		map[string]any{"mode": "managed", "type": "aws_sqs_queue", "name": "q", "instances": []any{map[string]any{"attributes": map[string]any{"password": "p"}}}},
	}
	resource := func(typ string, attributes map[string]any) {
		resources = append(resources, map[string]any{"mode": "managed", "type": typ, "name": "x", "instances": []any{map[string]any{"attributes": attributes}}})
	}
	switch o.kind {
	case dialect.KindRoute:
		attributes["virtual_router_name"] = "r"
		resource("aws_appmesh_virtual_router", map[string]any{"name": "r", "mesh_name": "m", "spec": []any{blocks(routerSpec)}})
	case mesh.KindGatewayRoute:
		attributes["virtual_gateway_name"] = "g"
	case mesh.KindMesh:
		delete(attributes, "mesh_name")
	}
	resource("aws_appmesh_"+strings.TrimSuffix(dialect.Terraform.Member(o.name), "_name"), attributes)
	return []any{map[string]any{"version": 4, "terraform_version": "1.9.0", "outputs": map[string]any{}, "resources": resources}}
}

// blocks has a list of one for each structure, and zero for some that is not given.
func blocks(v any) any {
	out := map[string]any{}
	for name, item := range v.(map[string]any) {
		key := dialect.Terraform.Member(name)
		switch item := item.(type) {
		case map[string]any:
			out[key] = []any{blocks(item)}
		case []any:
			var list []any
			pairs := map[string]any{}
			for _, i := range item {
				of, structure := i.(map[string]any)
				switch {
				case structure && name == "attributes":
					pairs[of["key"].(string)] = of["value"]
				case structure:
					list = append(list, blocks(of))
				default:
					list = append(list, i)
				}
			}
			if out[key] = list; name == "attributes" {
				out[key] = pairs
			}
		default:
			out[key] = item
		}
	}
	for _, c := range []struct {
		beside, name string
		zero         any
	}{{"weight", "port", 0}, {"healthy_threshold", "port", 0}} {
		if out[c.beside] != nil && out[c.name] == nil {
			out[c.name] = c.zero
		}
	}
	return out
}

// spelled has the names of a template.
func spelled(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, item := range v {
			out[dialect.CloudFormation.Member(name)] = spelled(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = spelled(item)
		}
		return out
	}
	return v
}

// try reads an object's spec; text is the file that has it.
func (f form) try(t *testing.T, o object, spec any) (found *dialect.Found, text string) {
	t.Helper()
	d := dialect.NewDrafts(dialect.Options{})
	files := f.files(o, spec)
	for i, file := range files {
		content, err := json.MarshalIndent(file, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		name := "router.json"
		if i == len(files)-1 {
			name, text = "object.json", string(content)
		}
		f.read(d, dialect.File{Name: name, Content: content})
	}
	return d.Found(), text
}

func TestEveryPathOfTheModelIsTaken(t *testing.T) {
	m := readModel(t)
	for _, f := range forms {
		all := 0
		for _, o := range objects {
			for _, s := range m.sites(o.shape) {
				all++
				found, text := f.try(t, o, m.make(o.shape, "", s.steps))
				if len(found.Resources) != 1 {
					t.Errorf("%s, %s %s: %v\n%s", f.name, o.kind, s.path(), found.Findings, text)
				}
				for _, finding := range found.Findings {
					if finding.Outcome == dialect.Dropped {
						t.Errorf("%s, %s %s: %s", f.name, o.kind, s.path(), finding)
					}
				}
			}
		}
		if all != 505 {
			t.Errorf("%s: %d paths", f.name, all)
		}
	}
}

// random makes a structure with a random choice of its members, in agreement with each other.
func (m model) random(of string, r *rand.Rand) map[string]any {
	out := m.structure(of, nil)
	s := m[of]
	if s.Union || slices.Contains(prose, of) {
		clear(out)
		names := slices.Sorted(maps.Keys(s.Members))
		names = slices.DeleteFunc(names, func(name string) bool { return name == "priority" })
		name := names[r.IntN(len(names))]
		out[name] = m.randomValue(s.Members[name].Shape, name, r)
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		if out[name] != nil || r.IntN(2) == 0 {
			out[name] = m.randomValue(s.Members[name].Shape, name, r)
		}
	}
	switch of {
	case "HttpRouteMatch", "HttpGatewayRouteMatch":
		delete(out, []string{"path", "prefix"}[r.IntN(2)])
		if out["path"] == nil {
			out["prefix"] = "/a"
		}
	case "HttpGatewayRoute":
		if rewrite, ok := out["action"].(map[string]any)["rewrite"].(map[string]any); ok { // AM-crossfield: of what it matches by
			if out["match"].(map[string]any)["path"] == nil {
				delete(rewrite, "path")
			} else {
				delete(rewrite, "prefix")
			}
		}
	case "GrpcRouteMatch", "GrpcGatewayRouteMatch":
		out["serviceName"] = "a"
	case "Listener", "VirtualGatewayListener":
		protocol := []string{"grpc", "http", "http2", "tcp"}[r.IntN(len(m[s.Members["connectionPool"].Shape].Members))]
		out["portMapping"] = map[string]any{"port": 8080, "protocol": protocol}
		for _, name := range []string{"timeout", "connectionPool"} {
			if shape := s.Members[name].Shape; out[name] != nil {
				out[name] = map[string]any{protocol: m.randomValue(m[shape].Members[protocol].Shape, protocol, r)}
			}
		}
	}
	return out
}

func (m model) randomValue(of, name string, r *rand.Rand) any {
	switch s := m[of]; {
	case s.Type == "structure":
		return m.random(of, r)
	case s.Type == "list":
		return []any{m.randomValue(s.Member.Shape, name, r)}
	case len(s.Enum) > 0:
		return s.Enum[r.IntN(len(s.Enum))]
	case s.Type == "boolean":
		return r.IntN(2) == 0
	}
	return m.make(of, name, nil)
}

// Specs that the model allows are accepted, in both forms alike, and come back the same.
func TestSpecsGeneratedFromTheModelAreAccepted(t *testing.T) {
	m, seeds := readModel(t), uint64(60)
	if os.Getenv("SOAK") == "1" {
		seeds = 600
	}
	for _, o := range objects {
		for seed := range seeds {
			spec := m.random(o.shape, rand.New(rand.NewPCG(seed, 8)))
			var first []*mesh.Resource
			for _, f := range forms {
				found, text := f.try(t, o, spec)
				if len(found.Resources) != 1 {
					t.Fatalf("%s, %s %d: %v\n%s", f.name, o.kind, seed, found.Findings, text)
				}
				if first == nil {
					first = found.Resources
				}
				if d := cmp.Diff(first, found.Resources, same...); d != "" {
					t.Fatalf("%s, %s %d: %s\n%s", f.name, o.kind, seed, d, text)
				}
				if f.path != nil {
					back(t, f.name, found.Resources)
				}
			}
		}
	}
}

// mutation is one constraint of the model, violated at a site, and the path that is told.
type mutation struct {
	what, path string
	spec       any
}

// mutations violate each constraint of a site once.
func (m model) mutations(o object, s site) []mutation {
	var list []mutation
	last := s.steps[len(s.steps)-1]
	add := func(what, path string, change func(in any)) {
		spec := m.make(o.shape, "", s.steps)
		change(at(spec, s.steps[:len(s.steps)-1]))
		list = append(list, mutation{what, path, spec})
	}
	set := func(what string, v any) {
		add(what, s.path(), func(in any) {
			if s.item {
				in.([]any)[0] = v
				return
			}
			in.(map[string]any)[last] = v
		})
	}
	parent := strings.TrimSuffix(s.path(), "."+last)
	if slices.Contains(s.parent.Required, last) {
		add("required", s.path(), func(in any) { delete(in.(map[string]any), last) })
	}
	if s.parent.Union && len(s.parent.Members) > 1 {
		add("two of a union", parent, func(in any) {
			for name, other := range s.parent.Members {
				in.(map[string]any)[name] = m.make(other.Shape, name, nil)
			}
		})
	}
	if s.parent.Union {
		none := parent
		if len(s.parent.Members) == 1 && last == "virtualService" { // the CRD requires it
			none = s.path()
		}
		add("none of a union", none, func(in any) { clear(in.(map[string]any)) })
	}
	sh := m[s.shape]
	switch sh.Type {
	case "structure", "list":
		set("type", "a text")
	case "boolean":
		set("type", 1)
	case "integer", "long":
		set("type", "a text")
		if sh.Min != nil {
			set("min", *sh.Min-1)
		}
		if sh.Max != nil {
			set("max", *sh.Max+1)
		}
	case "string":
		set("type", map[string]any{})
		if len(sh.Enum) > 0 {
			set("enum", "bogus")
		}
		if sh.Min != nil && *sh.Min > 0 {
			set("min", strings.Repeat("a", int(*sh.Min-1)))
		}
		if sh.Max != nil {
			set("max", strings.Repeat("a", int(*sh.Max+1)))
		}
		if sh.Pattern != "" {
			set("pattern", "\u00e9")
		}
	}
	if sh.Type == "list" && sh.Min != nil && *sh.Min > 0 {
		set("min", []any{})
	}
	if sh.Type == "list" && sh.Max != nil {
		many := []any{}
		for range *sh.Max + 1 {
			many = append(many, m.make(sh.Member.Shape, last, nil))
		}
		set("max", many)
	}
	return list
}

// at is what steps lead to.
func at(v any, steps []string) any {
	for _, step := range steps {
		if step == "[0]" {
			v = v.([]any)[0]
		} else {
			v = v.(map[string]any)[step]
		}
	}
	return v
}

// Each constraint of the model is violated once: the object is refused, and the path that
// is told is that of the field.
func TestEachConstraintOfTheModelViolatedIsRefusedByItsPath(t *testing.T) {
	m := readModel(t)
	for _, f := range forms {
		if f.path == nil {
			continue
		}
		all := 0
		for _, o := range objects {
			for _, s := range m.sites(o.shape) {
				for _, mut := range m.mutations(o, s) {
					all++
					found, text := f.try(t, o, mut.spec)
					told := slices.ContainsFunc(found.Findings, func(x dialect.Finding) bool {
						return x.Path == f.path(mut.path) && x.Outcome == dialect.Refused && x.File == "object.json" && x.Line > 0
					})
					if len(found.Resources) > 0 || len(found.Incomplete) > 0 || !told {
						t.Errorf("%s, %s %s, %s: want %s refused: %v\n%s", f.name, o.kind, s.path(), mut.what, f.path(mut.path), found.Findings, text)
					}
				}
			}
		}
		if all < 1200 {
			t.Errorf("%s: only %d violations", f.name, all)
		}
	}
}
