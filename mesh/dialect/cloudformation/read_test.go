package cloudformation_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/cloudformation"
	"signet.example/test/parts"
)

var update = flag.Bool("update", false, "rewrite the expectations under testdata; review the diff")

func read(o dialect.Options, files ...dialect.File) *dialect.Found {
	d := dialect.NewDrafts(o)
	for _, f := range files {
		cloudformation.Read(d, f)
	}
	return d.Found()
}

// summary is what was found, for a golden file; what is as App Mesh takes it only counted.
func summary(f *dialect.Found) string {
	var b strings.Builder
	for _, r := range f.Resources {
		fmt.Fprintf(&b, "complete: %s %s of mesh %q\n", r.Kind, r.Name, r.Mesh)
	}
	for _, o := range f.Incomplete {
		fmt.Fprintf(&b, "incomplete: %s\n", o)
	}
	for _, o := range f.Refused {
		fmt.Fprintf(&b, "refused: %s\n", o)
	}
	defaulted := 0
	for _, x := range f.Findings {
		if strings.HasSuffix(x.Text, "as App Mesh takes it") {
			defaulted++
		}
	}
	fmt.Fprintf(&b, "%d values, %d defaults; context: %d\n", len(f.Taken), defaulted, len(f.Context))
	for _, x := range f.Findings {
		if !strings.HasSuffix(x.Text, "as App Mesh takes it") {
			fmt.Fprintf(&b, "  %s\n", x)
		}
	}
	return b.String()
}

// given is what the samples take for granted: the parameters and exports of other stacks.
var given = dialect.Options{
	Region: "eu-west-1", AccountID: "111122223333", StackName: "stack",
	Parameters: map[string]string{
		"MicroserviceName": "yelb-ui", "EnvironmentName": "yelb", "Port": "80", "Protocol": "http",
		"AppMeshMeshName": "color", "MeshName": "m", "ServicesDomain": "color.local", "ProjectName": "project",
	},
	Exports: map[string]string{
		"yelb:Mesh": "yelb", "RootCA": "arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/r",
		"AppMeshCert": "arn:aws:acm:eu-west-1:111122223333:certificate/c", "EXTLB": "ext.example",
	},
}

func samples(t *testing.T) []string {
	all, err := filepath.Glob(filepath.Join(parts.Shared(t, "appmesh", "samples"), "*.y*ml"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, file := range all {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), "AWS::AppMesh::") {
			files = append(files, file)
		}
	}
	if len(files) != 13 {
		t.Fatalf("found %d templates", len(files))
	}
	slices.Sort(files)
	return files
}

func TestEverySampleTemplateIsRead(t *testing.T) {
	var got strings.Builder
	for _, file := range samples(t) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		fmt.Fprintf(&got, "# %s\n%s", name, summary(read(given, dialect.File{Name: name, Content: content})))
		fmt.Fprintf(&got, "# nothing given\n%s\n", summary(read(dialect.Options{}, dialect.File{Name: name, Content: content})))
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

func file(name, content string) dialect.File {
	return dialect.File{Name: name, Content: []byte(content)}
}

// node is a template with one virtual node in which a value stands as its host name.
func node(hostname string, rest ...string) string {
	return "Resources:\n  Mesh:\n    Type: AWS::AppMesh::Mesh\n    Properties: {MeshName: shop}\n" +
		"  Bucket:\n    Type: AWS::S3::Bucket\n    Properties: {Mode: 0755, Policy: !Unheard [a]}\n" +
		"  Node:\n    Type: AWS::AppMesh::VirtualNode\n    Properties:\n      MeshName: !GetAtt Mesh.MeshName\n      VirtualNodeName: node\n" +
		"      Spec:\n        ServiceDiscovery:\n          DNS:\n            Hostname: " + hostname + "\n" + strings.Join(rest, "\n") + "\n"
}

// hostname is the one in the virtual node, and the finding about it.
func hostname(t *testing.T, found *dialect.Found) (name, finding string) {
	t.Helper()
	for _, f := range found.Findings {
		if strings.HasSuffix(f.Path, ".Hostname") {
			finding = string(f.Outcome) + ": " + f.Text
		}
	}
	for _, r := range found.Resources {
		if s, ok := r.Spec.(*mesh.VirtualNodeSpec); ok && r.Mesh == "shop" {
			return s.ServiceDiscovery.DNS.Hostname, finding
		}
	}
	return "", finding
}

func TestFunctionsAreEvaluatedByWhatIsGiven(t *testing.T) {
	const more = `
Parameters:
  Name: {Type: String, Default: n}
  Given: {Type: String}
  None: {Type: String}
  List: {Type: CommaDelimitedList, Default: "a, b"}
  Stored: {Type: "AWS::SSM::Parameter::Value<String>", Default: /a/b}
Mappings:
  M: {eu-west-1: {host: mapped}}
Conditions:
  Yes: !Equals [!Ref Name, n]
  No: !Not [{Condition: Yes}]
  Either: !Or [!Condition Unknown, !Condition Yes]
  Both: !And [!Condition Unknown, !Condition "No"]
  Unknown: !Equals [!Ref None, n]
  Loop: !Not [!Condition Loop]`
	const is = "opaque: is "
	for value, want := range map[string][2]string{
		"!Ref Name":                                       {"n"},
		"{Ref: Given}":                                    {"given"},
		"!Ref AWS::Region":                                {"eu-west-1"},
		"!Sub '${Name}.${AWS::Region}.${!Name}'":          {"n.eu-west-1.${Name}"},
		"!Sub ['${A}.x', {A: !Ref Given}]":                {"given.x"},
		"!Sub '${Mesh.MeshName}.${Node.VirtualNodeName}'": {"shop.node"},
		"{'Fn::GetAtt': [Mesh, MeshName]}":                {"shop"},
		"!GetAtt Node.Arn":                                {"arn:aws:appmesh:eu-west-1:111122223333:mesh/shop/virtualNode/node"},
		"!Ref Mesh":                                       {"arn:aws:appmesh:eu-west-1:111122223333:mesh/shop"},
		"!Join ['-', [a, !Ref Name, {Ref: Given}]]":       {"a-n-given"},
		"!Join ['.', !Ref List]":                          {"a.b"},
		"!Select [1, !Ref List]":                          {"b"},
		"!Select ['0', !Split ['/', x/y]]":                {"x"},
		"!FindInMap [M, !Ref 'AWS::Region', host]":        {"mapped"},
		"!If [Yes, a, b]":                                 {"a"},
		"!If ['No', a, b]":                                {"b"},
		"!If [Either, a, b]":                              {"a"},
		"!If [Both, a, b]":                                {"b"},
		"!ImportValue {'Fn::Sub': '${Name}-x'}":           {"imported"},
		"!ImportValue other":                              {"offered"},
		"123":                                             {"123"},

		"!Ref None":                         {"${None}", is + `"${None}": parameter None has neither a value nor a default`},
		"!Sub 'a.${None}.${Name}'":          {"a.${None}.n", is + `"a.${None}.n": parameter None has neither a value nor a default`},
		"!Ref Stored":                       {"${Stored}", is + `"${Stored}": parameter Stored is in AWS's parameter store: give its value`},
		"!Ref Bucket":                       {"${Bucket}", is + `"${Bucket}": Bucket is an AWS::S3::Bucket, which only AWS names`},
		"!GetAtt Bucket.Arn":                {"${Bucket.Arn}", is + `"${Bucket.Arn}": only AWS knows Arn of Bucket, an AWS::S3::Bucket`},
		"!Ref Nobody":                       {"${Nobody}", is + `"${Nobody}": the template has no parameter and no resource "Nobody"`},
		"!If [Unknown, a, b]":               {"${Unknown}", is + `"${Unknown}": parameter None has neither a value nor a default`},
		"!If [Loop, a, b]":                  {"${Loop}", is + `"${Loop}": condition Loop needs itself`},
		"!If [Yes, a]":                      {"${Fn::If}", is + `"${Fn::If}": Fn::If does not have the arguments that it takes`},
		"!ImportValue nothing":              {"${ImportValue:nothing}", is + `"${ImportValue:nothing}": no value is given for what another stack exports as "nothing": --import-value NAME=VALUE, or its template`},
		"!Select [9, !Ref List]":            {"${Fn::Select}", is + `"${Fn::Select}": Fn::Select has no item 9`},
		"!FindInMap [M, nowhere, host]":     {"${Fn::FindInMap}", is + `"${Fn::FindInMap}": the template's Mappings have no M, nowhere, host`},
		"!Base64 x":                         {"${Fn::Base64}", is + `"${Fn::Base64}": only AWS evaluates Fn::Base64`},
		"!Join ['', !GetAZs '']":            {"${Fn::Join}", is + `"${Fn::Join}": only AWS evaluates Fn::GetAZs`},
		"!Ref List":                         {"", "refused: must be a string, is a list"},
		"!If [Yes, !Ref 'AWS::NoValue', b]": {"", "refused: is required"},
	} {
		other := "Resources: {}\nOutputs:\n  A: {Value: !Sub offered, Export: {Name: other}}\n"
		found := read(dialect.Options{
			Region: "eu-west-1", AccountID: "111122223333",
			Parameters: map[string]string{"Given": "given"}, Exports: map[string]string{"n-x": "imported"},
		}, file("t.yaml", node(value, more)), file("other.yaml", other))
		if name, finding := hostname(t, found); name != want[0] || finding != want[1] {
			t.Errorf("%s: %q, %q\nwant %q, %q\n%s", value, name, finding, want[0], want[1], summary(found))
		}
	}
}

func TestWhatCannotBeKnownMakesItsResourceIncompleteWhereNoTextCanStand(t *testing.T) {
	const listener = "MeshName: m, VirtualNodeName: n, Spec: {Listeners: [{PortMapping: {Port: !Ref P, Protocol: http}}]}"
	for properties, want := range map[string]string{
		listener: "incomplete: VirtualNode n\n0 values, 0 defaults; context: 0\n  t.yaml:5:91: Resources.A.Properties.Spec.Listeners[0].PortMapping.Port: missing: cannot be known: parameter P has neither a value nor a default\n",
		"MeshName: m, VirtualNodeName: n, Spec: !Ref P":                                        "Resources.A.Properties.Spec: missing: cannot be known: parameter P",
		"MeshName: m, VirtualNodeName: n, Spec: {Listeners: !Ref P}":                           "Resources.A.Properties.Spec.Listeners: missing: cannot be known: parameter P",
		"MeshName: m, VirtualNodeName: !Sub '${P}-n', Spec: {}":                                "incomplete: VirtualNode ${P}-n\n",
		"MeshName: !Ref P, VirtualNodeName: n, Spec: {}":                                       "Resources.A.Properties.MeshName: missing: cannot be known: parameter P",
		"MeshName: m, VirtualNodeName: n, Spec: {ServiceDiscovery: {DNS: {Hostname: !Ref P}}}": `opaque: is "${P}"`,
		"'Fn::Transform': {Name: x}":                                                           "incomplete: VirtualNode A\n",
	} {
		content := "Parameters:\n  P: {Type: String}\nResources:\n  A: {Type: AWS::AppMesh::VirtualNode,\n    Properties: {" + properties + "}}\n"
		if got := summary(read(dialect.Options{}, file("t.yaml", content))); !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %s", properties, got, want)
		}
	}
}

func TestAValueThatItsParameterForbidsIsRefusedWithWhatItMayBe(t *testing.T) {
	const content = "Parameters:\n  Env: {Type: String, AllowedValues: [staging, production]}\n  W: {Type: Number, MinValue: 0, MaxValue: 100}\n  S: {Type: String}\nResources: {}\n"
	for given, want := range map[string]string{
		"Env=prod":    `Parameters.Env: refused: "prod" is none of its AllowedValues: staging, production`,
		"Env=staging": "", "W=10": "", "W=0.5": "", "S=ten": "",
		"W=ten": `Parameters.W: refused: "ten" is not a number, which is its Type`,
		"W=-1":  `Parameters.W: refused: "-1" is less than its MinValue, 0`,
		"W=101": `Parameters.W: refused: "101" is more than its MaxValue, 100`,
	} {
		name, value, _ := strings.Cut(given, "=")
		got := summary(read(dialect.Options{Parameters: map[string]string{name: value}}, file("t.yaml", content)))
		if want != "" && !strings.Contains(got, want) || want == "" && strings.Contains(got, "refused") {
			t.Errorf("%s: %s\nwant %s", given, got, want)
		}
	}
}

func TestAResourceIsThereIfItsConditionHolds(t *testing.T) {
	template := func(condition string) string {
		return "Conditions:\n  Yes: !Equals [a, a]\n  No: !Equals [a, b]\n  Unknown: !Equals [a, !Ref P]\nResources:\n  A: {Type: AWS::AppMesh::Mesh, Condition: " + condition + "}\n"
	}
	for condition, want := range map[string]string{
		"'Yes'":   `complete: Mesh A of mesh "A"`,
		"'No'":    "dropped: condition No does not hold",
		"Unknown": "incomplete: Mesh A\n",
		"[a]":     `missing: cannot be known: the template has no condition ""`,
		"Other":   `missing: cannot be known: the template has no condition "Other"`,
	} {
		if got := summary(read(dialect.Options{}, file("t.yaml", template(condition)))); !strings.Contains(got, want) {
			t.Errorf("%s: %s", condition, got)
		}
	}
}

func TestNamesOfResourcesAreFoundByReferenceInBothForms(t *testing.T) {
	yaml := node("a", "        Listeners: [{PortMapping: {Port: 80, Protocol: http}}]", "  Router:\n    Type: AWS::AppMesh::VirtualRouter\n    Properties: {MeshName: !Ref Mesh, VirtualRouterName: r, Spec: {Listeners: [{PortMapping: {Port: 80, Protocol: http}}]}}",
		"  Route:\n    Type: AWS::AppMesh::Route\n    Properties:\n      MeshName: !GetAtt Mesh.MeshName\n      VirtualRouterName: !GetAtt Router.VirtualRouterName\n      RouteName: all\n"+
			"      Spec: {HttpRoute: {Match: {Prefix: /}, Action: {WeightedTargets: [{VirtualNode: !Ref Node, Weight: '1'}]}}}",
		"  Service:\n    Type: AWS::AppMesh::VirtualService\n    Properties: {MeshName: shop, VirtualServiceName: s.local, Tags: [{Key: a, Value: b}], Spec: {Provider: {VirtualRouter: {VirtualRouterName: !GetAtt Router.VirtualRouterName}}}}")
	found := read(dialect.Options{}, file("t.yaml", yaml))
	g, err := mesh.NewGraph(found.Resources)
	if err != nil {
		t.Fatalf("%v\n%s", err, summary(found))
	}
	router := g.Router(mesh.NameOf(mesh.KindVirtualRouter, "shop", "r"))
	if router == nil || len(router.Routes) != 1 || router.Routes[0].Targets[0].Node.Name != "node" {
		t.Errorf("%+v", router)
	}
	var dropped []string
	for _, f := range found.Findings {
		if f.Outcome == dialect.Dropped {
			dropped = append(dropped, f.String())
		}
	}
	if len(dropped) != 1 || !strings.Contains(dropped[0], "Resources.Service.Properties.Tags: dropped") {
		t.Error(dropped)
	}
}

// A macro may change every resource, but for those of AWS that are known not to.
func TestWhatAMacroMayHaveChangedIsIncomplete(t *testing.T) {
	const mesh = "Resources: {A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: m}}}\n"
	for content, want := range map[string]string{
		"Transform: AWS::Serverless-2016-10-31\n" + mesh:                                                                                     "complete: Mesh m",
		"Transform: [AWS::LanguageExtensions, Own]\n" + mesh:                                                                                 "only AWS knows what macro Own makes of it",
		"Transform: {Name: AWS::Include, Parameters: {Location: s3://a/b}}\n" + mesh:                                                         "only AWS knows what macro AWS::Include makes of it",
		"Resources: {A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: m, Fn::Transform: {Name: AWS::Include}}}}\n":                       "only AWS knows what Fn::Transform adds",
		"Resources: {A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: m, Spec: {EgressFilter: {Type: DROP_ALL, Fn::Transform: {}}}}}}\n": "incomplete: Mesh m\n",
		"Resources: {'Fn::ForEach::X': [A, [b], {}]}\n":                                                                                      "only AWS knows which resources Fn::ForEach::X makes",
	} {
		content = strings.ReplaceAll(content, "Fn::Transform:", "'Fn::Transform':")
		if got := summary(read(dialect.Options{}, file("t.yaml", content))); !strings.Contains(got, want) {
			t.Errorf("%s: %s", content, got)
		}
	}
}

// What a template's functions expand to is bounded, whatever it has.
func TestATemplateThatExpandsToTooMuchIsCutOff(t *testing.T) {
	var b strings.Builder
	b.WriteString("Parameters:\n  P0: {Type: String, Default: aaaaaaaaaaaaaaaa}\nResources:\n")
	for i := range 30 {
		ref := fmt.Sprintf("${N%d.VirtualNodeName}", i+1)
		if i == 29 {
			ref = "${P0}"
		}
		fmt.Fprintf(&b, "  N%d: {Type: AWS::AppMesh::VirtualNode, Properties: {MeshName: m, VirtualNodeName: !Sub '%s', Spec: {}}}\n", i, strings.Repeat(ref, 8))
	}
	found := read(dialect.Options{}, file("t.yaml", b.String()))
	if len(found.Incomplete) == 0 || !strings.Contains(summary(found), "expands to too much") {
		t.Error(len(found.Resources), len(found.Incomplete))
	}
}

// A list counts by its items each time that it is referred to.
func TestAListParameterThatIsReferredToOftenIsCutOff(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "Parameters:\n  P: {Type: CommaDelimitedList, Default: %q}\nResources:\n  M:\n    Type: AWS::AppMesh::Mesh\n    Properties:\n      MeshName: shop\n      Spec:\n        X:\n", strings.Repeat(",", 400_000))
	b.WriteString(strings.Repeat("        - !Ref P\n", 100))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read(dialect.Options{}, file("t.yaml", b.String()))
	runtime.ReadMemStats(&after)
	if all := after.TotalAlloc - before.TotalAlloc; all > 1<<30 {
		t.Errorf("%d MiB are allocated", all>>20)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(node("!Sub '${A.B}'")), "P", "v")
	f.Add([]byte("Resources: {A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: !If [A, b, !Ref P]}}}\nConditions: {A: !Equals [a, !Ref P]}\nParameters: {P: {Type: String}}"), "P", "v")
	f.Add([]byte(`{"Resources": {"A": {"Type": "AWS::AppMesh::VirtualNode", "Properties": {"Spec": {"Fn::If": ["A", {}, {"Ref": "AWS::NoValue"}]}}}}}`), "P", "v")
	f.Add([]byte("Resources: {A: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: !ImportValue a}}}\nOutputs: {A: {Value: !ImportValue a, Export: {Name: a}}}"), "P", "v")
	f.Fuzz(func(t *testing.T, content []byte, name, value string) {
		found := read(dialect.Options{Parameters: map[string]string{name: value}}, dialect.File{Name: "f", Content: content})
		for _, r := range found.Resources {
			if docs, err := mesh.Split("again", r.Encode()); err != nil || len(docs) != 1 {
				t.Fatalf("%v cannot be written: %v", r, err)
			}
		}
	})
}
