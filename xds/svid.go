package xds

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The SAN matchers of a TLS context accept a certificate if one of its names
// fits, and a prefix says nothing of what follows. So the first filter behind TLS
// holds the list of all URI SANs, joined by commas, to one well-formed SPIFFE ID:
// who has two names, or dots or escapes in one, is cut off before any byte is
// read as HTTP. What is no matter of names (usages, signing certificates) is left
// to the agent, which parses the certificate (docs/decisions/020).
const (
	oneSVIDFilter = "signet.one_svid"
	noSVIDFilter  = "signet.no_svid"

	// segment is one of SPIFFE-ID 2.2, neither "." nor ".."; RE2 has no look-ahead.
	segment = `(?:[A-Za-z0-9_-][A-Za-z0-9._-]*|\.[A-Za-z0-9_-][A-Za-z0-9._-]*|\.\.[A-Za-z0-9._-]+)`
	// oneSPIFFEID leaves the trust domain to the SAN matchers: so its size does not
	// grow with it, and stays below the 100 that RE2 may have by default in Envoy.
	oneSPIFFEID = `spiffe://[a-z0-9._-]+(?:/` + segment + `)+`
	// anySPIFFEID is one anywhere in the list, whatever else is.
	anySPIFFEID = `(?is).*spiffe:.*`
)

func (b *builder) oneSVID() *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       oneSVIDFilter,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.part(byURIs{oneSVIDFilter})},
	}
}

// noSVID stands where authorities of a file say who calls: who has a SPIFFE ID by their
// word is cut off (docs/decisions/059).
func (b *builder) noSVID() *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       noSVIDFilter,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.part(byURIs{noSVIDFilter})},
	}
}

// byURIs is one of the two filters, by its name.
type byURIs struct{ filter string }

func (u byURIs) message(b *builder) proto.Message {
	if u.filter == noSVIDFilter {
		return byNames(b.any, "no_svid", anySPIFFEID, deny("some"), allow("none"))
	}
	return oneSVID(b.any)
}

// oneSVID allows a connection whose peer has one name, a SPIFFE ID.
func oneSVID(pack func(proto.Message) *anypb.Any) *networkrbacv3.RBAC {
	return byNames(pack, "one_svid", oneSPIFFEID, allow("one"), deny("not_one"))
}

func allow(name string) *rbacv3.Action {
	return &rbacv3.Action{Name: name, Action: rbacv3.RBAC_ALLOW}
}

func deny(name string) *rbacv3.Action { return &rbacv3.Action{Name: name, Action: rbacv3.RBAC_DENY} }

// byNames decides on a connection by the list of the peer's URI SANs.
func byNames(pack func(proto.Message) *anypb.Any, prefix, regex string, fits, otherwise *rbacv3.Action) *networkrbacv3.RBAC {
	do := func(a *rbacv3.Action) *xdsmatcherv3.Matcher_OnMatch {
		return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
			Name: a.GetName(), TypedConfig: pack(a),
		}}}
	}
	one := &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscorev3.TypedExtensionConfig{Name: "uri_sans", TypedConfig: pack(&sslv3.UriSanInput{})},
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &xdsmatcherv3.StringMatcher{
				MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
					EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}}, Regex: regex,
				}},
			}},
		},
	}}
	return &networkrbacv3.RBAC{
		StatPrefix: prefix + ".",
		Matcher: &xdsmatcherv3.Matcher{
			MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
				Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{Predicate: one, OnMatch: do(fits)}},
			}},
			OnNoMatch: do(otherwise),
		},
	}
}
