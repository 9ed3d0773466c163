package operator

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"signet.example/agent/local"
	"signet.example/agent/resources"
	"signet.example/identity"
)

// interpreters are programs that run others' files: their path and their hash are those of each.
var interpreters = regexp.MustCompile(`^(python|pypy|ruby|perl|node|java|php|lua|R|tclsh|bash|dash|zsh|ksh|sh|busybox|deno|bun|dotnet|beam\.smp|erl|env)[0-9.]*$`)

// proposal is one under way.
type proposal struct {
	to  local.Proposal
	has identity.Selectors
}

// propose chooses selectors that a process has after its next start too, and that as few others
// as can be have: its service or pod, or its program, and its user.
func propose(has identity.Selectors, check resources.Check) local.Proposal {
	p := &proposal{has: has}
	switch {
	case p.take("signet:proxy"):
		p.to.Binding, p.to.Name = true, p.value("signet:proxy")
	case p.take("signet:unit"):
		p.take("ecs:cluster")
		p.take("ecs:family")
		p.to.Name = p.value("ecs:family")
	default:
		p.ofHost()
	}
	p.to.Name = nameOf(p.to.Name, p.value("unix:uid"))
	if err := check(p.to.Selectors, p.to.Binding); err != nil { // of a method that this version does not know the traits of
		p.note("%v", err)
	}
	return p.to
}

// ofHost proposes for a process that is told apart from the others of its host.
func (p *proposal) ofHost() {
	p.take("unix:uid")
	unit, program := p.value("systemd:unit"), p.value("unix:path")
	ownUnit := unit != "" && !strings.HasPrefix(unit, "user@")
	switch {
	case p.take("k8s:ns") && p.take("k8s:sa"):
		p.take("k8s:container-name")
		p.to.Name = p.value("k8s:sa")
	case p.composed("docker"), p.composed("podman"), p.composed("containerd"):
	case ownUnit:
		p.take("systemd:unit")
		p.to.Name = strings.TrimSuffix(unit, ".service")
	case program != "":
		p.take("unix:path")
		p.to.Name = path.Base(program)
	}
	switch {
	case len(p.to.Selectors) < 2:
		p.note("%v: all processes of user %s fit; run it as a user of its own, or as a service of systemd", errUnfit, p.value("unix:uid"))
	case p.value("unix:uid") == "0" && !ownUnit:
		p.note("it runs as root: a user of its own is one more thing that others have to be")
	}
	if base := path.Base(program); p.asks("unix:path") && interpreters.MatchString(base) {
		p.note("%s runs others' files: all that user %s has it run fits; a service of systemd, or a user of its own, tells this one apart", base, p.value("unix:uid"))
	}
	if strings.HasPrefix(unit, "user@") && !ownUnit {
		p.note("systemd:unit:%s is not proposed: all that the user's own manager starts is in it", unit)
	}
}

// composed takes the labels that tell the services of containers apart, or the image.
func (p *proposal) composed(runtime string) bool {
	service := p.labelled(runtime, "com.docker.compose.service")
	if service != "" {
		p.labelled(runtime, "com.docker.compose.project")
		p.to.Name = service
		return true
	}
	for _, form := range []string{"image_id", "image"} {
		if p.take(runtime + ":" + form) {
			p.note("%s:%s is that of the image that runs now: another release of it needs another Entry; a label of the container lasts", runtime, form)
			return true
		}
	}
	return false
}

func (p *proposal) labelled(runtime, key string) (value string) {
	if value = p.value(runtime + ":label:" + key); value != "" {
		p.take(runtime + ":label:" + key)
	}
	return value
}

func (p *proposal) note(format string, args ...any) {
	p.to.Notes = append(p.to.Notes, fmt.Sprintf(format, args...))
}

// value is that of the first selector of a form, "" where there is none.
func (p *proposal) value(form string) string {
	for _, s := range p.has {
		if value, ok := strings.CutPrefix(s.String(), form+":"); ok {
			return value
		}
	}
	return ""
}

// take adds the first selector of a form.
func (p *proposal) take(form string) bool {
	value := p.value(form)
	if value != "" {
		p.to.Selectors = append(p.to.Selectors, form+":"+value)
	}
	return value != ""
}

func (p *proposal) asks(form string) bool {
	for _, s := range p.to.Selectors {
		if strings.HasPrefix(s, form+":") {
			return true
		}
	}
	return false
}

// notInName is what the name of an object cannot have.
var notInName = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

func nameOf(text, uid string) string {
	name := strings.Trim(notInName.ReplaceAllString(text, "-"), "-.")
	if identity.CheckName(name) != nil {
		name = "user-" + uid
	}
	if identity.CheckName(name) != nil {
		name = "workload"
	}
	return name
}
