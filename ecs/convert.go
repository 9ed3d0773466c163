package ecs

import (
	"errors"
	"fmt"
	"strings"
)

// Options are what no task definition has: where Signet's server is, and by what a task knows it.
type Options struct {
	// Server is its address, host:port.
	Server string
	// Image is that of Signet's agent with Envoy (`make image`), in a registry that the tasks reach.
	Image string
	// Root is the trust domain's root certificate, in PEM: ca/root.crt of `signet init`.
	Root string
	// WayOut is how applications call others through the proxy. By default it is [ByRedirection]
	// for a task that has proxyConfiguration, else [ByVariable].
	WayOut WayOut
	// Applications are the containers that are the application, where it is not to be found by
	// dependsOn and portMappings.
	Applications []string
}

// WayOut is how an application calls others through its proxy.
type WayOut string

const (
	// ByRedirection keeps proxyConfiguration: the platform leads what the application calls, and
	// who calls it, to the proxy, so that nothing changes in the application.
	ByRedirection WayOut = "redirect"
	// ByVariable takes the redirection out, and gives the application http_proxy, which most clients of HTTP obey.
	ByVariable WayOut = "http_proxy"
	// ByItself: the application calls 127.0.0.1:15001 by its own configuration.
	ByItself WayOut = "none"
)

// WaysOut are all of them.
var WaysOut = []string{string(ByRedirection), string(ByVariable), string(ByItself)}

// Change is why a part of the definition is not as it was.
type Change struct {
	// Path of what changed, containers by their names.
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Result is a converted definition and what belongs to it.
type Result struct {
	// Definition is the new one, in the form of the old one.
	Definition string `json:"definition"`
	// Changes are why it is not as it was, one for each edit.
	Changes []Change `json:"changes"`
	// Diff is by lines, without values of variables that are not App Mesh's or Signet's.
	Diff []Line `json:"diff"`
	// Written and TakenOut count the lines of the diff.
	Written  int `json:"written"`
	TakenOut int `json:"takenOut"`
	// IAM is what changes for the roles of each definition.
	IAM []Roles `json:"iam"`
	// Objects are manifests for `signet apply`; "" where the definition does not say what they name.
	Objects string `json:"objects"`
	// Notes are what whoever deploys it has to know.
	Notes []string `json:"notes"`
}

// Convert makes a definition, or a template with such, with Signet's agent in the place of App
// Mesh's Envoy. What it cannot convert it refuses, all at once.
func Convert(file, text string, o Options) (*Result, error) {
	domain, err := o.check()
	if err != nil {
		return nil, err
	}
	d, err := read(file, text)
	if err != nil {
		return nil, err
	}
	if d, err = d.registered(); err != nil {
		return nil, err
	}
	tasks, err := d.tasks()
	if err != nil {
		return nil, err
	}
	r := &Result{Changes: []Change{}, Notes: []string{}}
	for _, t := range tasks {
		t.options = o
		t.convert()
		t.lost()
		for _, c := range t.changes {
			r.Changes = append(r.Changes, *c)
		}
		err = errors.Join(err, errors.Join(t.problems...))
		if err == nil {
			r.IAM = append(r.IAM, t.roles(domain))
			for _, o := range t.objects() {
				if !strings.Contains(r.Objects, o) { // a role of several definitions has one group
					r.Objects += o
				}
			}
		}
		r.Notes = append(r.Notes, t.notes...)
	}
	if err != nil {
		return nil, err
	}
	return r, r.write(d)
}

// write makes the new text, and reads it again: an edit never leaves what cannot be read.
func (r *Result) write(d *document) error {
	w := writer{from: d.text}
	w.b.WriteString(d.text[:d.root.start])
	w.value(d.root)
	w.b.WriteString(d.text[d.root.end:])
	r.Definition = w.b.String()
	made, err := read(d.file, r.Definition)
	if err != nil {
		return fmt.Errorf("internal error: the converted definition cannot be read: %w", err)
	}
	r.diff(d, made, w.out)
	return nil
}

// onlyDescribed are the keys that describe-task-definition answers and register-task-definition refuses.
var onlyDescribed = []string{"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy", "deregisteredAt"}

// registered is the text in the form that can be registered: of what was described the definition
// alone; and of what stands on one line, with a line for each value.
func (d *document) registered() (*document, error) {
	described := d.root.get("taskDefinition")
	if described == nil || described.kind != mapping || len(described.children) == 0 || d.root.get("Resources") != nil {
		if d.yaml || strings.Contains(strings.TrimSpace(d.text), "\n") || d.root.kind != mapping || len(d.root.children) == 0 {
			return d.withoutDescribed()
		}
		return d.again(indented(d.text))
	}
	if tags := d.root.get("tags").items(); len(tags) > 0 && described.get("tags") == nil {
		described.insert((&task{d: d}).tags(tags), nil)
	}
	w := writer{from: d.text}
	w.value(described)
	line := d.text[:described.children[0].start]
	if !described.block {
		line = d.text[:d.root.children[0].start]
	}
	unindent := strings.Repeat(" ", len(line)-1-strings.LastIndexByte(line, '\n'))
	text := strings.ReplaceAll(w.b.String(), "\n"+unindent, "\n")
	if !strings.Contains(strings.TrimSpace(text), "\n") && !d.yaml {
		text = indented(text)
	}
	return d.again(strings.TrimRight(text, "\r\n") + "\n")
}

// tags are those of an answer, as the definition has them, on one line.
func (t *task) tags(of []*value) string {
	var all []string
	for _, tag := range of {
		var members []string
		for _, c := range tag.children {
			members = append(members, t.member(c.name, c.val.literal()))
		}
		all = append(all, string(t.object(members...)))
	}
	return t.member("tags", raw("["+strings.Join(all, ", ")+"]"))
}

func (d *document) again(text string) (*document, error) {
	next, err := read(d.file, text)
	if err != nil {
		return nil, err
	}
	next.made = true
	return next.withoutDescribed()
}

// withoutDescribed takes out what is in answers alone.
func (d *document) withoutDescribed() (*document, error) {
	if d.root.get("containerDefinitions") == nil {
		return d, nil
	}
	for _, key := range onlyDescribed {
		d.root.remove(func(c child) bool { return c.name == key }, func(child) *Change { return &Change{} })
	}
	if !d.root.edited() {
		return d, nil
	}
	w := writer{from: d.text}
	w.b.WriteString(d.text[:d.root.start])
	w.value(d.root)
	w.b.WriteString(d.text[d.root.end:])
	next, err := read(d.file, w.b.String())
	if err == nil {
		next.made = true
	}
	return next, err
}
