package operator

import (
	"strings"

	"signet.example/attestation"
	"signet.example/identity"
)

// lasts is for how long a workload has a selector.
type lasts string

// How long they last.
const (
	// stable: the workload has it after its next start, too.
	stable lasts = "stable"
	// release: it changes with what is deployed.
	release lasts = "release"
	// start: another one with each start. An Entry that asks for it fits no process after that.
	start lasts = "start"
)

// trait is what whoever asks for a selector in an Entry or a Binding has to know of it.
type trait struct {
	// Form is the selector without its value, as unix:uid.
	Form  string
	Lasts lasts
	// With is who else has it, "" where it is one workload's own.
	With string
}

// traits are those of all forms; of several that begin a selector the longest one counts. The
// names of containers and pods are those that SPIRE gives them.
var traits = []trait{
	{"unix:uid", stable, "all processes of the user"},
	{"unix:user", stable, "all processes of the user"},
	{"unix:gid", stable, "all processes with the group as their first one"},
	{"unix:group", stable, "all processes with the group as their first one"},
	{"unix:supplementary_gid", stable, "all members of the group"},
	{"unix:supplementary_group", stable, "all members of the group"},
	{"unix:path", stable, "whoever may execute the program; of an interpreter all its scripts"},
	{"unix:sha256", release, "whoever may execute the program"},
	{"systemd:unit", stable, ""},
	{"systemd:slice", stable, "all units of the slice"},
	{"systemd:invocation", start, ""},
	{"signet:proxy", stable, ""},
	{"signet:unit", stable, "all processes of the task except the agent's proxies"},
	{"ecs", stable, "all processes of the task, and of other tasks of its family"},
	{"ecs:revision", release, "all processes of the task, and of other tasks of its revision"},
	{"docker:label", stable, "all containers with the label"},
	{"docker:env", stable, "all containers with the variable"},
	{"docker:image_id", release, "all containers of the image"},
	{"docker:image_config_digest", release, "all containers of the image"},
	{"docker:container", start, ""},
	{"podman:label", stable, "all containers with the label"},
	{"podman:env", stable, "all containers with the variable"},
	{"podman:image", release, "all containers of the image"},
	{"containerd:label", stable, "all containers with the label"},
	{"containerd:image", release, "all containers of the image"},
	{"k8s:ns", stable, "all pods of the namespace"},
	{"k8s:sa", stable, "all pods with a service account of this name, in any namespace"},
	{"k8s:node-name", stable, "all pods of the node"},
	{"k8s:container-name", stable, "all containers of this name, in any pod"},
	{"k8s:container-image", release, "all containers of the image"},
	{"k8s:pod-image", release, "all pods with a container of the image"},
	{"k8s:pod-init-image", release, "all pods with a container of the image"},
	{"k8s:pod-image-count", release, "all pods with so many containers"},
	{"k8s:pod-init-image-count", release, "all pods with so many containers"},
	{"k8s:pod-label", stable, "all pods with the label"},
	{"k8s:pod-name", start, ""},
	{"k8s:pod-uid", start, ""},
	{"k8s:pod-owner", release, "all pods of the owner"},
	{"k8s:pod-owner-uid", release, "all pods of the owner"},
}

// userManager is a unit that all processes of a user's own manager are in.
const userManager = "systemd:unit:user@"

// traitOf returns that of a selector. One that is not in the table is taken for one that does
// not last: nothing is proposed by it.
func traitOf(s identity.Selector) trait {
	text, found := s.String(), trait{Form: attestation.FormOf(s), Lasts: start}
	best := -1
	for _, t := range traits {
		if strings.HasPrefix(text, t.Form+":") && len(t.Form) > best {
			found.Lasts, found.With, best = t.Lasts, t.With, len(t.Form)
			if found.Form == "" {
				found.Form = t.Form
			}
		}
	}
	if strings.HasPrefix(text, userManager) {
		found.With = "all processes that the user's own manager started"
	}
	return found
}
