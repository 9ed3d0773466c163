package agent

import (
	"context"
	"fmt"
	"log/slog"

	"signet.example/agent/envoy"
	"signet.example/agent/readonly"
	"signet.example/agent/relay"
	"signet.example/agent/tlsfiles"
	"signet.example/agent/wayout"
	"signet.example/identity"
	"signet.example/internal/netns"
	"signet.example/proxy"
)

// This file hands the proxies of the configuration to the part that runs them.

// proxiesOf are the proxies of a configuration as they are run. given is what no
// proxy says of itself.
func proxiesOf(list []Proxy, given proxy.Shape) []envoy.Proxy {
	all := make([]envoy.Proxy, len(list))
	for i, p := range list {
		all[i] = envoy.Proxy{Name: p.Name, Ref: p.ref(), Shape: p.shape(given), Admin: p.Admin, ReadOnly: p.AdminReadOnly, Concurrency: p.Concurrency, User: p.as}
	}
	return all
}

// filesOf are the folders of files that each proxy may have.
func filesOf(list []Proxy) map[string][]tlsfiles.Dir {
	all := map[string][]tlsfiles.Dir{}
	for _, p := range list {
		all[p.Name] = p.TLSDirs
	}
	return all
}

// shape is what the proxy is to the server.
func (p Proxy) shape(given proxy.Shape) proxy.Shape {
	at, _ := p.egress() // Validate has refused what is none
	given.Bind, given.App, given.Egress, given.EgressOpen = p.Bind, p.App, at, p.EgressOpen
	given.ServiceAddresses = p.ServiceAddresses
	given.Capture = p.Capture.With(netns.HasIPv6())
	given.Suit(p.ref())
	return given
}

// read has others read of a proxy.
func (a *agent) read(ctx context.Context, p envoy.Proxy, get func(context.Context, string) (int, []byte, error)) {
	readonly.Run(ctx, readonly.Config{Address: p.ReadOnly, Ask: get, Log: a.log.With(slog.String("proxy", p.Name))})
}

// listens reports whether the application behind a proxy is there.
func (a *agent) listens(p envoy.Proxy) bool {
	v := a.relay.ViewOf(p.Name)
	return v != nil && !p.Ref.Gateway() && a.wayOut.Listens(p.Ref, v.Shape(), v.BoundAs())
}

// checkProxy looks at the folders that an operator may have changed since the start.
func checkProxy(p envoy.Proxy) error {
	if err := wayout.CheckEgress(p.Shape.Egress, p.UID()); err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	return wayout.CheckApp(p.Shape)
}

// views are the relay's, as the envoy part takes them.
type views struct{ relay *relay.Relay }

// Configure implements envoy.Views.
func (v views) Configure(name string, ref proxy.Ref, shape proxy.Shape) {
	v.relay.Configure(name, ref, shape)
}

// Unconfigure implements envoy.Views.
func (v views) Unconfigure(name string) { v.relay.Unconfigure(name) }

// For implements envoy.Views.
func (v views) For(ctx context.Context, name string, has identity.Selectors) (envoy.View, error) {
	view, err := v.relay.ForProxy(ctx, name, has)
	if err != nil {
		return nil, err // and no view, not even a nil one of the relay's
	}
	return view, nil
}

// Refused implements envoy.Views.
func (v views) Refused(name string) string { return v.relay.Refused(name) }

// Changed implements envoy.Views.
func (v views) Changed() <-chan struct{} { return v.relay.StateChanged() }
