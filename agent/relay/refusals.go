package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/resources"
	"signet.example/identity"
)

// refuse logs why, and answers a peer no more than that it may not; where two bindings
// fit it, which they are, since nobody else can mend that, and where its node id is of
// something else, what it is bound to. What it was seen to be is for whoever writes its binding.
func (r *Relay) refuse(ctx context.Context, node string, has identity.Selectors, err error) error {
	r.config.Refused.Inc()
	if bound := r.boundTo(has); errors.Is(err, resources.ErrNotBound) && node != "" && bound != "" {
		err = fmt.Errorf("%w as %.512q: it is bound to %s", err, node, bound)
	}
	r.config.Log.WarnContext(ctx, "xds.sock: peer refused", slog.String("node", node), slog.Any("selectors", has.Strings()), slog.Any("err", err))
	if name := resources.ProxyName(has); name != "" {
		r.noteRefused(name, fmt.Sprintf("no binding lets proxy %s (%s) be %s%s", name, has, node, lacking(r.bindingsOf(node), has)))
	}
	if _, ok := errors.AsType[*identity.AmbiguousError](err); ok {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	if unseen(err) {
		return status.Error(codes.Unavailable, errUnseen.Error())
	}
	if !errors.Is(err, resources.ErrNotBound) {
		err = resources.ErrNotBound
	}
	return status.Error(codes.PermissionDenied, err.Error())
}

// boundTo is what a peer's bindings let it be, by name; "" where there are none.
func (r *Relay) boundTo(has identity.Selectors) string {
	s := r.config.State.Load()
	if s == nil {
		return ""
	}
	var names []string
	for _, ref := range s.RefsOf(has) {
		names = append(names, ref.String())
	}
	return strings.Join(names, ", ")
}

// bindingsOf are the bindings of this host's group for a node.
func (r *Relay) bindingsOf(node string) []identity.Binding {
	s := r.config.State.Load()
	if s == nil {
		return nil
	}
	var list []identity.Binding
	for _, b := range s.Bindings {
		if resources.RefOf(b).String() == node {
			list = append(list, b)
		}
	}
	return list
}

// mostLacking is how many bindings of its node are named that a proxy does not fit.
const mostLacking = 5

// lacking is what bindings of a proxy's node ask for that it has not, for an error.
func lacking(bindings []identity.Binding, has identity.Selectors) string {
	var b strings.Builder
	for i, binding := range bindings {
		if i == mostLacking {
			fmt.Fprintf(&b, "; and %d more bindings of that node", len(bindings)-i)
			break
		}
		wants := slices.DeleteFunc(slices.Clone(binding.Selectors), func(s identity.Selector) bool { return slices.Contains(has, s) })
		fmt.Fprintf(&b, "; binding %s asks for %s, which it has not", strings.TrimPrefix(binding.Name, "binding/"), strings.Join(wants.Strings(), ", "))
	}
	return b.String()
}

func (r *Relay) noteRefused(name, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.proxies[name]; ok {
		p.refused = why
		r.proxies[name] = p
	}
}

// Refused is why a proxy that the agent supervises is given nothing, by what its process
// was attested to be; "" where it is given something, or has not asked.
func (r *Relay) Refused(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proxies[name].refused
}

// errUnseen is not ErrNotBound: an agent that is out of files has not seen a process,
// and knows nothing of it.
var errUnseen = errors.New("the agent cannot look at this process now: try again")

// unseen reports whether a look at a process failed for what this host is short of.
func unseen(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, context.DeadlineExceeded)
}

// endsWith is why a stream ends whose process was not found to be bound.
func endsWith(err error) error {
	if unseen(err) {
		return errUnseen
	}
	return resources.ErrNotBound
}

// errAppFolder is all that a proxy which the agent did not start is told of the folder
// that it names: the agent looks with rights that the proxy may not have.
var errAppFolder = errors.New("app: the folder of the application's sockets is missing, or not as it must be (docs/AGENT.md); the log of the agent says which")
