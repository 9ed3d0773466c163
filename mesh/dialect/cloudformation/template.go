package cloudformation

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh/dialect"
)

// template is one that is being read.
type template struct {
	drafts *dialect.Drafts

	parameters, mappings, conditions, resources, outputs manifest.Node

	macro string // that may change every resource; "" for none

	open map[string]bool // what is being evaluated: what needs itself is not known
	// What was evaluated so far, in values and in bytes of text; and how deep it stands.
	values, bytes, depth int
}

// Limits of one template, beside those of a document: what its functions expand to.
const (
	maxValues = 200_000
	maxBytes  = 8 << 20
	maxNested = 100
)

func newTemplate(d *dialect.Drafts, root manifest.Node) *template {
	return &template{
		drafts: d, open: map[string]bool{},
		parameters: root.Get("Parameters"), mappings: root.Get("Mappings"), conditions: root.Get("Conditions"),
		resources: root.Get("Resources"), outputs: root.Get("Outputs"), macro: macroOf(root.Get("Transform")),
	}
}

// harmless are the macros of AWS that change no resource of App Mesh's: what they make
// new has names and functions of its own.
var harmless = []string{"AWS::CodeDeployBlueGreen", "AWS::LanguageExtensions", "AWS::SecretsManager-2020-07-23", "AWS::Serverless-2016-10-31"}

func macroOf(transform manifest.Node) string {
	names := transform.Items()
	if transform.Is() != manifest.List && transform.Is() != manifest.Null {
		names = []manifest.Node{transform}
	}
	for _, n := range names {
		name := n.Text()
		if n.Is() == manifest.Mapping {
			name = n.Get("Name").Text()
		}
		if !slices.Contains(harmless, name) {
			return cmp.Or(name, "without a name")
		}
	}
	return ""
}

// checkParameters refuses given values that the template does not allow.
func (t *template) checkParameters() {
	for _, p := range t.parameters.Members() {
		given, ok := t.drafts.Options.Parameters[p.Name]
		if !ok {
			continue
		}
		if why := forbidden(p.Value, given); why != "" {
			t.drafts.Note("", dialect.Refused, p.Key(), "Parameters."+p.Name, fmt.Sprintf("%q is %s", manifest.Clip(given), why))
		}
	}
}

// forbidden is why a parameter may not have a value; "" where it may. Its lengths and pattern are
// not looked at: what App Mesh lets a value be is.
func forbidden(p manifest.Node, given string) string {
	if allowed := p.Get("AllowedValues").Items(); len(allowed) > 0 {
		var values []string
		for _, a := range allowed {
			if a.Text() == given {
				return ""
			}
			values = append(values, a.Text())
		}
		return "none of its AllowedValues: " + manifest.Clip(strings.Join(values, ", "))
	}
	if p.Get("Type").Text() != "Number" {
		return ""
	}
	n, err := strconv.ParseFloat(given, 64)
	if err != nil {
		return "not a number, which is its Type"
	}
	if least, err := strconv.ParseFloat(p.Get("MinValue").Text(), 64); err == nil && n < least {
		return "less than its MinValue, " + p.Get("MinValue").Text()
	}
	if most, err := strconv.ParseFloat(p.Get("MaxValue").Text(), 64); err == nil && n > most {
		return "more than its MaxValue, " + p.Get("MaxValue").Text()
	}
	return ""
}

// offerExports offers to the other templates what this one exports.
func (t *template) offerExports() {
	for _, o := range t.outputs.Members() {
		name := t.eval(o.Value.Get("Export").Get("Name"))
		if name.Is() != manifest.Scalar {
			continue
		}
		t.drafts.Export(name.Text(), func() manifest.Node {
			return t.once("export "+name.Text(), o.Key(), func() manifest.Node { return t.eval(o.Value.Get("Value")) })
		})
	}
}

// once evaluates what has a name; where that needs itself, it cannot be known.
func (t *template) once(name string, at manifest.Node, eval func() manifest.Node) manifest.Node {
	if t.open[name] {
		return at.Opaque("${"+name+"}", name+" needs itself")
	}
	t.open[name] = true
	defer delete(t.open, name)
	return eval()
}

// parameter is the value of a parameter where it is referred to.
func (t *template) parameter(at manifest.Node, name string, p manifest.Node) manifest.Node {
	typ := p.Get("Type").Text()
	text, given := t.drafts.Options.Parameters[name]
	if !given {
		value := p.Get("Default")
		switch {
		case strings.HasPrefix(typ, "AWS::SSM::"):
			return at.Opaque("${"+name+"}", fmt.Sprintf("parameter %s is in AWS's parameter store: give its value", name))
		case value.Is() != manifest.Scalar:
			return at.Opaque("${"+name+"}", fmt.Sprintf("parameter %s has neither a value nor a default", name))
		}
		text = value.Text()
	}
	if typ != "CommaDelimitedList" && !strings.Contains(typ, "List<") {
		return at.String(text)
	}
	var items []manifest.Node
	for item := range strings.SplitSeq(text, ",") {
		if t.values++; t.values > maxValues {
			return at.Opaque("${"+name+"}", "the template expands to too much")
		}
		items = append(items, at.String(strings.TrimSpace(item)))
	}
	return at.List(items...)
}

// pseudo is the value of a pseudo parameter.
func (t *template) pseudo(at manifest.Node, name string) manifest.Node {
	value := map[string]string{
		"AWS::Region": t.drafts.Options.Region, "AWS::AccountId": t.drafts.Options.AccountID, "AWS::StackName": t.drafts.Options.StackName,
		"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com",
	}[name]
	if value == "" {
		return at.Opaque("${"+name+"}", name+" is not given")
	}
	return at.String(value)
}

// nameOf is the name of App Mesh's resource, or that of what it is in.
func (t *template) nameOf(at manifest.Node, logical, property string, k kind) manifest.Node {
	return t.once(logical+"."+property, at, func() manifest.Node {
		value := t.eval(t.resources.Get(logical).Get("Properties").Get(property))
		switch {
		case value.Is() == manifest.Null && property == k.name:
			return at.String(t.generated(logical))
		case value.Is() == manifest.Opaque:
			return at.Opaque(value.Text(), value.Why())
		case value.Is() != manifest.Scalar:
			return at.Opaque("${"+logical+"."+property+"}", logical+" has no "+property)
		}
		return at.String(value.Text())
	})
}

// arnOf is the ARN of App Mesh's resource.
func (t *template) arnOf(at manifest.Node, logical string, k kind) manifest.Node {
	text, why := "arn:aws:appmesh:"+t.drafts.Options.Region+":"+t.drafts.Options.AccountID+":mesh", ""
	add := func(before, property string) {
		n := t.nameOf(at, logical, property, k)
		if n.Is() == manifest.Opaque {
			why = n.Why()
		}
		text += before + "/" + lastName(n.Text())
	}
	add("", "MeshName")
	if k.parent != "" {
		add("/"+kinds[strings.TrimSuffix(k.parent, "Name")].arn, k.parent)
	}
	if k.arn != "" {
		add("/"+k.arn, k.name)
	}
	if why != "" {
		return at.Opaque(text, why)
	}
	return at.String(text)
}

// lastName is a name, or the one at the end of an ARN.
func lastName(text string) string {
	if strings.HasPrefix(text, "arn:") {
		return text[strings.LastIndexByte(text, '/')+1:]
	}
	return text
}
