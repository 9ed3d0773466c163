package xds

import (
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"signet.example/mesh"
	"signet.example/proxy"
)

// What a load balancer says of the caller before it. forwardedPort is withheld from others
// (docs/decisions/025); Envoy looks after the other ones, by how many hops are believed.
const (
	forwardedFor  = "x-forwarded-for"
	forwardedPort = "x-forwarded-port"
)

// callers are those of one filter chain: what the agent hears of them, and what of their
// headers is believed (docs/decisions/080).
type callers struct {
	port    uint32 // of the listener
	says    string // a value of [proxy.CallersKey]; "" for nothing
	ingress bool   // whether they are at one, of which what the connection says is believed
	passed  string // the kinds of headers that it is declared to say, each with a comma behind it
	// strangers call where an ingress is declared, and are none, or speak through one: nothing is
	// theirs to say of a caller before them, or of its user.
	strangers bool
}

// byCertificate: who has an identity says for whom it calls, as in any chain of calls. That a
// load balancer of connections carries it makes no difference to who says so: its clients do.
func byCertificate(l mesh.Listener) callers {
	c := inPlaintext(l)
	c.strangers = l.ProxyProtocol || c.strangers && (l.AnyClient() || l.ForeignClients())
	return c
}

// inPlaintext are those who are at no ingress.
func inPlaintext(l mesh.Listener) callers {
	c := callers{port: l.Port, strangers: len(l.Ingress) > 0}
	if l.ForeignClients() {
		c.says = proxy.ForeignCallers
	}
	return c
}

// atIngress: what a load balancer of connections carries its clients said, and it says who they
// are before the first byte of theirs.
func atIngress(l mesh.Listener, in mesh.Ingress) callers {
	c := callers{port: l.Port, says: proxy.IngressCallers(in.Name)}
	if c.strangers = l.ProxyProtocol; !l.ProxyProtocol {
		c.ingress = true
		for _, kind := range in.Passes {
			c.passed += kind + ","
		}
	}
	return c
}

// metadata is that of each question to the agent. It is in the listener, beside who its
// callers are: both change at once.
func (c callers) metadata() []*corev3.HeaderValue {
	list := []*corev3.HeaderValue{{Key: proxy.PortKey, Value: port(c.port)}}
	if c.says != "" {
		list = append(list, &corev3.HeaderValue{Key: proxy.CallersKey, Value: c.says})
	}
	return list
}

// foreign reports whether callers' certificates give them no identity.
func (c callers) foreign() bool { return c.says == proxy.ForeignCallers }

// believe has a manager pass on what an ingress says of the caller before it.
func (c callers) believe(m *hcmv3.HttpConnectionManager) {
	if !c.ingress {
		return
	}
	m.XffNumTrustedHops = 1 // that of an ingress: its x-forwarded-proto holds, too
	m.SkipXffAppend = true
	m.PreserveExternalRequestId = true
}

// withholds reports whether a header of a kind is taken from such callers.
func (c callers) withholds(kind, header string) bool {
	return !c.ingress || header != forwardedPort && !c.passes(kind)
}

// passes reports whether such callers are declared to say what is in headers of a kind.
func (c callers) passes(kind string) bool {
	return strings.Contains(","+c.passed, ","+kind+",")
}

// forged is what is taken from callers beside what is taken from all. What else is said of users
// the agent withholds, which knows who may.
func (b *builder) forged(c callers) []*mutationv3.HeaderMutation {
	if !c.strangers {
		return nil
	}
	list := []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Remove{Remove: forwardedFor}}}
	if b.unsafe(proxy.UnsafeUserHeaders) {
		return list
	}
	for _, begins := range proxy.UserHeaders() {
		list = append(list, removed(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: begins}}))
	}
	return list
}
