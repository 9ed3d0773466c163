package cloudformation

import (
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// kind is one of App Mesh's types of resources.
type kind struct {
	mesh.Kind
	name, parent string // properties that have its name and that of what it is in, beside the mesh
	arn          string // what stands before its name in an ARN
}

const typePrefix = "AWS::AppMesh::"

var kinds = map[string]kind{
	"Mesh":           {mesh.KindMesh, "MeshName", "", ""},
	"VirtualNode":    {mesh.KindVirtualNode, "VirtualNodeName", "", "virtualNode"},
	"VirtualService": {mesh.KindVirtualService, "VirtualServiceName", "", "virtualService"},
	"VirtualRouter":  {mesh.KindVirtualRouter, "VirtualRouterName", "", "virtualRouter"},
	"Route":          {dialect.KindRoute, "RouteName", "VirtualRouterName", "route"},
	"VirtualGateway": {mesh.KindVirtualGateway, "VirtualGatewayName", "", "virtualGateway"},
	"GatewayRoute":   {mesh.KindGatewayRoute, "GatewayRouteName", "VirtualGatewayName", "gatewayRoute"},
}

// Read implements [dialect.Reader]. What refers to exports of other templates is looked at
// when all are read.
func Read(d *dialect.Drafts, f dialect.File) {
	d.File(f.Name)
	roots, errs := manifest.Form{Tags: Tags, Unfilled: f.Unfilled}.Read(f.Name, f.Content)
	if len(roots) == 0 {
		d.Wrong(errs)
		return
	}
	t := newTemplate(d, roots[0])
	d.Wrong(t.concerning(errs))
	if t.resources.Is() != manifest.Mapping {
		d.Note("", dialect.Refused, roots[0], "Resources", "is required: a CloudFormation template has Resources")
		return
	}
	t.checkParameters()
	t.offerExports()
	d.Later(t.read)
}

// concerning are the mistakes of what is looked at: not those of other types' resources.
func (t *template) concerning(errs manifest.Errors) manifest.Errors {
	return slices.DeleteFunc(slices.Clone(errs), func(e *manifest.Error) bool {
		section, rest, _ := strings.Cut(e.Field, ".")
		switch section {
		case "", "Parameters", "Mappings", "Conditions":
			return false
		case "Resources":
			name, _, _ := strings.Cut(rest, ".")
			typ := t.resources.Get(name).Get("Type").Text()
			return !strings.HasPrefix(typ, typePrefix)
		}
		return true
	})
}

// read adds every resource.
func (t *template) read() {
	for _, m := range t.resources.Members() {
		path := "Resources." + m.Name
		typ := m.Value.Get("Type").Text()
		rest, ours := strings.CutPrefix(typ, typePrefix)
		k, known := kinds[rest]
		switch {
		case strings.HasPrefix(m.Name, "Fn::"):
			t.incomplete(m, path, "object", "only AWS knows which resources "+m.Name+" makes")
		case !ours:
			t.drafts.AddContext(dialect.ObjectAt(m.Key(), path, typ, m.Name))
		case !known:
			t.drafts.Note(typ+" "+m.Name, dialect.Refused, m.Key(), path+".Type", "App Mesh has no such type")
		default:
			t.resource(m, path, k)
		}
	}
}

func (t *template) incomplete(m manifest.Member, path, kind, why string) {
	o := dialect.ObjectAt(m.Key(), path, kind, m.Name)
	t.drafts.Note(o.String(), dialect.Missing, m.Key(), path, "cannot be known: "+why)
	t.drafts.AddIncomplete(o)
}

func (t *template) resource(m manifest.Member, path string, k kind) {
	if condition := m.Value.Get("Condition"); condition.Is() != manifest.Null {
		switch is, why := t.condition(condition.Text()); is {
		case no:
			t.drafts.Note(string(k.Kind)+" "+m.Name, dialect.Dropped, condition, path+".Condition", "condition "+condition.Text()+" does not hold: there is no such resource")
			return
		case unknown:
			t.incomplete(m, path, string(k.Kind), why)
			return
		}
	}
	if t.macro != "" {
		t.incomplete(m, path, string(k.Kind), "only AWS knows what macro "+manifest.Clip(t.macro)+" makes of it")
		return
	}
	properties := t.eval(m.Value.Get("Properties"))
	if properties.Is() == manifest.Opaque {
		t.incomplete(m, path+".Properties", string(k.Kind), properties.Why())
		return
	}
	path += ".Properties."
	property := func(name string) manifest.Member {
		return manifest.Member{Written: path + name, Value: properties.Get(name)}
	}
	x := dialect.Draft{
		Kind: k.Kind, Name: property(k.name), Mesh: property("MeshName"), Spec: property("Spec"),
		Spelling: dialect.CloudFormation, At: m.Key(),
	}
	if x.Name.Value.Is() == manifest.Null {
		x.Name.Value = m.Key().String(t.generated(m.Name))
		t.drafts.Note(string(k.Kind)+" "+x.Name.Value.Text(), dialect.Defaulted, m.Key(), x.Name.Written, "is "+x.Name.Value.Text()+", where CloudFormation makes a name with random letters")
	}
	if k.parent != "" {
		x.Parent = property(k.parent)
	}
	for _, p := range properties.Members() {
		if why := besides(p.Name, k); why != "" {
			t.drafts.Note(string(k.Kind)+" "+x.Name.Value.Text(), dialect.Dropped, p.Key(), path+p.Name, why)
		}
	}
	t.drafts.Add(x)
}

// besides returns why a property is dropped, "" for one that is not.
func besides(name string, k kind) string {
	switch name {
	case k.name, k.parent, "MeshName", "Spec":
		return ""
	case "Tags":
		return "there are no AWS tags here"
	case "MeshOwner":
		return "there are no AWS accounts here"
	}
	return "App Mesh's model has no such field"
}

// generated is the name of a resource that has none.
func (t *template) generated(logical string) string {
	if stack := t.drafts.Options.StackName; stack != "" {
		return stack + "-" + logical
	}
	return logical
}
