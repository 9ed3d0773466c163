package ecs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// task is one task definition in a text.
type task struct {
	d       *document
	v       *value
	path    string // of its members, "" at the top
	upper   bool   // CloudFormation's spelling: ContainerDefinitions
	options Options

	envoy        *value
	name         string // of the Envoy's container
	proxy        string // its virtual node or gateway, as its variable has it; "" where that is a function
	gateway      bool   // that is what it is for
	applications []*value
	way          WayOut
	redirects    redirection // of which nothing is kept where way is another

	changes  []*Change
	problems []error
	notes    []string
}

// tasks are the definitions of a text that have an Envoy of App Mesh.
func (d *document) tasks() ([]*task, error) {
	resources := d.root.get("Resources")
	switch {
	case d.root.kind == list:
		return nil, d.errorAt(d.root.start, "", "a list, as Terraform's container_definitions, is only a part of a task definition: give what `aws ecs describe-task-definition` answers")
	case resources == nil && d.root.get("containerDefinitions") == nil:
		return nil, d.errorAt(d.root.start, "", "want a task definition: the input of register-task-definition, the answer of describe-task-definition, or a template of CloudFormation")
	case resources == nil:
		return []*task{{d: d, v: d.root}}, nil
	}
	var all []*task
	var unknown []string
	found := 0
	for _, c := range resources.children {
		if !c.val.get("Type").is("AWS::ECS::TaskDefinition") {
			continue
		}
		found++
		t := &task{d: d, v: c.val.get("Properties"), path: "Resources." + c.name + ".Properties", upper: true}
		if t.v != nil && (t.get("proxyConfiguration") != nil || slices.ContainsFunc(t.get("containerDefinitions").items(), t.looksLikeEnvoy)) {
			all = append(all, t)
			continue
		}
		if !t.writtenOut() {
			unknown = append(unknown, "Resources."+c.name)
		}
	}
	if len(all) > 0 && unknown != nil {
		all[0].note("%s: its containers are not written out here, so that it was not looked at and stays as it is: convert it by itself if App Mesh's Envoy is among them", strings.Join(unknown, ", "))
	}
	if len(all) == 0 {
		return nil, d.errorAt(resources.start, "Resources", "none of its %d AWS::ECS::TaskDefinition has a container with App Mesh's Envoy", found)
	}
	return all, nil
}

// writtenOut reports whether what the containers are is in the text.
func (t *task) writtenOut() bool {
	all := t.get("containerDefinitions")
	return all != nil && all.kind == list && !slices.ContainsFunc(all.items(), func(c *value) bool { return c.kind != mapping })
}

// key is a name in the spelling of the text.
func (t *task) key(name string) string {
	switch {
	case !t.upper:
		return name
	case name == "properties":
		return "ProxyConfigurationProperties"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func (t *task) get(name string) *value               { return t.of(t.v, name) }
func (t *task) literal(v *value, name string) string { return t.of(v, name).literal() }

// of is a member; what has null, or nothing, is not there.
func (t *task) of(v *value, name string) *value {
	member := v.get(t.key(name))
	if member == nil || member.kind == scalar && slices.Contains([]string{"", "null", "~"}, t.d.text[member.start:member.end]) {
		return nil
	}
	return member
}

// at is a path below the definition.
func (t *task) at(steps ...string) string {
	path := t.path
	for _, s := range steps {
		if !strings.HasPrefix(s, "[") {
			s = t.key(s)
			if path != "" {
				path += "."
			}
		}
		path += s
	}
	return path
}

// container is the path of one, by its name.
func (t *task) container(v *value, steps ...string) string {
	return t.at(append([]string{"containerDefinitions", "[" + t.literal(v, "name") + "]"}, steps...)...)
}

func (t *task) refuse(at *value, path, format string, args ...any) {
	start := t.v.start
	if at != nil {
		start = at.start
	}
	t.problems = append(t.problems, t.d.errorAt(start, path, format, args...))
}

func (t *task) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// because is a change and its reason.
func (t *task) because(path, format string, args ...any) *Change {
	c := &Change{Path: path, Reason: fmt.Sprintf(format, args...)}
	t.changes = append(t.changes, c)
	return c
}

// raw is text that is written as it is.
type raw string

// text is a value as it is written on one line.
func (t *task) text(of any) string {
	switch of := of.(type) {
	case raw:
		return string(of)
	case int:
		return strconv.Itoa(of)
	case bool:
		return strconv.FormatBool(of)
	case string:
		return quoted(of)
	case []string:
		var items []string
		for _, s := range of {
			items = append(items, quoted(s))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	panic("internal error: a value of no kind")
}

func quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string and a buffer
	return strings.TrimSuffix(b.String(), "\n")
}

// member is one as it is written.
func (t *task) member(name string, of any) string {
	if name = t.key(name); !t.d.yaml {
		name = quoted(name)
	}
	return name + ": " + t.text(of)
}

// object is one as it is written on one line.
func (t *task) object(members ...string) raw { return raw("{" + strings.Join(members, ", ") + "}") }

// set gives a mapping a member, in the place of what it had.
func (t *task) set(v *value, name string, of any, why *Change) {
	if had := v.get(t.key(name)); had != nil {
		had.replace(t.text(of), why)
		return
	}
	v.insert(t.member(name, of), why)
}

// drop takes a member out.
func (t *task) drop(v *value, name string, why *Change) {
	v.remove(func(c child) bool { return c.name == t.key(name) }, func(child) *Change { return why })
}

// add gives a list of a mapping more items; a list that is not there or empty is made.
func (t *task) add(v *value, name string, whys []*Change, items ...raw) {
	of := t.of(v, name)
	if of == nil || len(of.children) == 0 {
		var texts []string
		for _, i := range items {
			texts = append(texts, string(i))
		}
		t.set(v, name, raw("["+strings.Join(texts, ", ")+"]"), whys[0])
		return
	}
	for i, item := range items {
		of.insert(t.item(of, item), whys[i])
	}
}

// item is one of a list as it is written there.
func (t *task) item(of *value, item raw) string {
	if of.block {
		return "- " + string(item)
	}
	return string(item)
}
