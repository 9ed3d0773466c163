package attestation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"signet.example/identity"
)

// workload is one way to attest a process.
type workload struct {
	// of returns the selectors that the process has by it: none where it does not apply
	// or what it reads cannot be vouched for, which can only make fewer entries fit. An
	// error refuses the peer as a whole. has is what the methods before it found. It is
	// called for every answer, from any goroutine, and is over when ctx ends.
	of func(ctx context.Context, p *Peer, proc *proc, has identity.Selectors) (identity.Selectors, error)
	// forms are all selectors that it gives; an entry with another one is refused.
	forms identity.Forms
	// task reports whether it is one of a task, too, where proc is nil.
	task bool
}

// workloads are all methods, cheap ones first: whether a program is hashed depends
// on what else it has.
var workloads = []workload{
	{of: ofUnix, forms: unixForms},
	{of: ofSupervisor, forms: supervisorForms, task: true},
	{of: ofUnit, forms: unitForms, task: true},
	{of: ofPlatform, forms: ECSForms, task: true},
	{of: ofSystemd, forms: systemdForms},
	{of: ofHash, forms: hashForms},
}

// CheckWorkload refuses selectors of an Entry or a Binding that no process can have by
// any method. Its errors are at the fields of their specs.
func CheckWorkload(selectors []string) error {
	return errors.Join(workloadForms().Check(selectors), checkPlatform(selectors))
}

// checkPlatform refuses selectors that everybody in a task has, its proxy as its application.
func checkPlatform(selectors []string) error {
	has := func(prefix string) bool {
		return slices.ContainsFunc(selectors, func(s string) bool { return strings.HasPrefix(s, prefix) })
	}
	if !has("ecs:") || has("signet:") {
		return nil
	}
	return identity.NewFieldError("spec.selectors", "ecs:… is what a task has as a whole: name %s beside it for the application, or signet:proxy:<name> for the proxy that the agent starts", theTask)
}

// theTask is what every process of a task has except for the agent's own proxies.
var theTask = identity.TheTask

var unitForms = identity.Forms{"signet:unit": func(value string) error {
	if value != "task" {
		return fmt.Errorf("want %s, the only unit that is attested as a whole", theTask)
	}
	return nil
}}

// ofUnit returns the unit that is attested as a whole, which no process of a host is in.
func ofUnit(_ context.Context, p *Peer, _ *proc, has identity.Selectors) (identity.Selectors, error) {
	if !p.attestor.Task || len(has) > 0 { // a proxy is no application
		return nil, nil
	}
	return identity.Selectors{theTask}, nil
}

// ofPlatform returns what its platform says of the task.
func ofPlatform(_ context.Context, p *Peer, _ *proc, _ identity.Selectors) (identity.Selectors, error) {
	return p.attestor.Platform, nil
}

var supervisorForms = identity.Forms{"signet:proxy": identity.CheckName}

// ofSupervisor returns which of the agent's own proxies the process is.
func ofSupervisor(_ context.Context, p *Peer, _ *proc, _ identity.Selectors) (identity.Selectors, error) {
	if p.attestor.Supervised == nil {
		return nil, nil
	}
	name, ok := p.attestor.Supervised(p.pidfd, p.pid)
	if !ok {
		return nil, nil
	}
	return identity.Selectors{{Type: "signet", Value: "proxy:" + name}}, nil
}

// FormOf is the form of a selector that a process can have, as unix:uid; "" of another one.
func FormOf(s identity.Selector) string {
	for form := range workloadForms() {
		if strings.HasPrefix(s.String(), form+":") {
			return form
		}
	}
	return ""
}

// workloadForms are those of all methods.
func workloadForms() identity.Forms {
	all := identity.Forms{}
	for _, w := range workloads {
		maps.Copy(all, w.forms)
	}
	return all
}
