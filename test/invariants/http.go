package invariants

import (
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/proto"
)

// manager: the order of filters where requests come in, and the hardening.
func (c *checker) manager(v visited, m *hcmv3.HttpConnectionManager) {
	chain, _ := parent[*listenerv3.FilterChain](v)
	believed := ingressOf(chain) != ""
	if inbound(v) {
		c.filters(v.path, m)
		if m.GetForwardClientCertDetails() != hcmv3.HttpConnectionManager_SANITIZE_SET {
			c.say(v.path, "x-forwarded-client-cert of a caller is not replaced")
		}
		if m.GetSetCurrentClientCertDetails().GetChain() == managerSaysForeign(m) {
			c.say(v.path, "the agent is not shown the caller's chain")
		}
		if m.GetCommonHttpProtocolOptions().GetMaxConnectionDuration() == nil ||
			m.GetCommonHttpProtocolOptions().GetMaxStreamDuration() == nil {
			c.say(v.path, "connections or streams have no end")
		}
	}
	for _, h := range []struct {
		ok   bool
		what string
	}{
		{m.GetNormalizePath().GetValue() && m.GetMergeSlashes(), "paths are not normalised"},
		{m.GetPathWithEscapedSlashesAction() == hcmv3.HttpConnectionManager_REJECT_REQUEST, "escaped slashes are not refused"},
		{m.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_REJECT_REQUEST || underscoresAreTheAgents(v, m), "underscores in headers are not refused"},
		{m.GetUseRemoteAddress().GetValue() && (m.GetXffNumTrustedHops() == 0 || believed && m.GetXffNumTrustedHops() == 1), "x-forwarded-for is believed"},
		{proto.Equal(m.GetInternalAddressConfig(), internalAddresses), "callers may be internal"},
		{dropsProxyHeaders(m), "a caller may speak in a proxy's name"},
		{!carried(v) || takesAway(m, "x-forwarded-for"), "a load balancer's clients say for whom they call"},
		{!m.GetPreserveExternalRequestId() || believed, "request ids of callers are kept"},
		{m.GetStreamIdleTimeout().AsDuration() > 0 && m.GetRequestHeadersTimeout().AsDuration() > 0, "silent clients are kept"},
	} {
		if !h.ok {
			c.say(v.path, "%s", h.what)
		}
	}
}

// underscoresAreTheAgents holds where Envoy lets headers with underscores through, and the agent is
// told which ones of them pass. Of an application's own calls their callee's agent decides.
func underscoresAreTheAgents(v visited, m *hcmv3.HttpConnectionManager) bool {
	if m.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW {
		return false
	}
	var z authzv3.ExtAuthz
	for _, f := range m.GetHttpFilters() {
		if f.GetTypedConfig().MessageIs(&z) && f.GetTypedConfig().UnmarshalTo(&z) == nil {
			return slices.ContainsFunc(z.GetGrpcService().GetInitialMetadata(), func(h *corev3.HeaderValue) bool { return h.GetKey() == underscoresKey && h.GetValue() != "" })
		}
	}
	return !inbound(v)
}

// dropsProxyHeaders: more may be dropped, and nothing else may be done.
func dropsProxyHeaders(m *hcmv3.HttpConnectionManager) bool {
	es := m.GetEarlyHeaderMutationExtensions()
	var drop earlyv3.HeaderMutation
	if len(es) != 1 || es[0].GetTypedConfig().UnmarshalTo(&drop) != nil {
		return false
	}
	least := len(dropProxyHeaders.GetMutations())
	if len(drop.GetMutations()) < least || slices.ContainsFunc(drop.GetMutations()[least:], func(m *mutationv3.HeaderMutation) bool { return m.GetRemove() == "" && m.GetRemoveOnMatch() == nil }) {
		return false
	}
	drop.Mutations = drop.GetMutations()[:least]
	return proto.Equal(&drop, dropProxyHeaders)
}

// takesAway reports whether a caller's header is gone before anybody reads it.
func takesAway(m *hcmv3.HttpConnectionManager, header string) bool {
	return slices.ContainsFunc(m.GetEarlyHeaderMutationExtensions(), func(e *corev3.TypedExtensionConfig) bool {
		var drop earlyv3.HeaderMutation
		return e.GetTypedConfig().UnmarshalTo(&drop) == nil && slices.ContainsFunc(drop.GetMutations(), func(m *mutationv3.HeaderMutation) bool { return m.GetRemove() == header })
	})
}

// inbound holds unless the listener says otherwise: a manager in doubt must
// have authorization.
func inbound(v visited) bool {
	l, ok := parent[*listenerv3.Listener](v)
	return !ok || l.GetTrafficDirection() != corev3.TrafficDirection_OUTBOUND
}

// filters wants exactly one of each, in order, the router last.
func (c *checker) filters(path string, m *hcmv3.HttpConnectionManager) {
	want := []proto.Message{&rbacfilterv3.RBAC{}, &authzv3.ExtAuthz{}, &headermutationv3.HeaderMutation{}, &routerv3.Router{}}
	at := make([]int, len(want))
	for i, w := range want {
		at[i] = slices.IndexFunc(m.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool { return f.GetTypedConfig().MessageIs(w) })
		if at[i] < 0 {
			c.say(path, "no filter %s", w.ProtoReflect().Descriptor().FullName())
			return
		}
	}
	if at[0] != 0 || !slices.IsSorted(at) || at[3] != len(m.GetHttpFilters())-1 {
		c.say(path, "filters are out of order")
	}
	var refusal rbacfilterv3.RBAC
	if m.GetHttpFilters()[0].GetTypedConfig().UnmarshalTo(&refusal) != nil ||
		!proto.Equal(&refusal, refuseAmbiguous) && !proto.Equal(&refusal, refuseButSemicolons) {
		c.say(path, "the first filter does not refuse what is ambiguous")
	}
	var chain headermutationv3.HeaderMutation
	if m.GetHttpFilters()[at[2]].GetTypedConfig().UnmarshalTo(&chain) != nil || !proto.Equal(&chain, withoutChain) {
		c.say(path, "the caller's chain reaches the application")
	}
	// The stamp is found by the filter's name.
	if name := m.GetHttpFilters()[at[1]].GetName(); name != authzFilter {
		c.say(path, "the authorization filter is named %q: no route can stamp it", name)
	}
	for _, u := range m.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 {
			c.say(path, "upgrade %s has filters of its own", u.GetUpgradeType())
		}
	}
}
