package invariants

import (
	"embed"
	"fmt"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	connauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	// Only for the types that its configurations carry in an Any: what is not linked
	// in cannot be read.
	_ "signet.example/xds"
)

// What filters must be, to the field: where a guard is compared and not
// understood, its whole text is here. A change of one is a change of what is
// promised, and is made by hand.
//
//go:embed want/*.json
var texts embed.FS

var (
	wayoutAuthz         = want("wayout_ext_authz", new(connauthzv3.ExtAuthz))
	authzConnection     = want("authz_connection", new(connauthzv3.ExtAuthz))
	internalAddresses   = want("internal_addresses", new(hcmv3.HttpConnectionManager_InternalAddressConfig))
	dropProxyHeaders    = want("drop_proxy_headers", new(earlyv3.HeaderMutation))
	refuseAmbiguous     = want("refuse_ambiguous", new(rbacfilterv3.RBAC))
	refuseButSemicolons = want("refuse_ambiguous_but_semicolons", new(rbacfilterv3.RBAC)) // a mesh may let them through
	withoutChain        = want("without_chain", new(headermutationv3.HeaderMutation))
	mutationRules       = want("mutation_rules", new(mutationrulesv3.HeaderMutationRules))
	oneSVID             = want("one_svid", new(networkrbacv3.RBAC))
	noSVID              = want("no_svid", new(networkrbacv3.RBAC))
	repeatIdempotent    = want("repeat_idempotent", new(matchingv3.ExtensionWithMatcher))
	notServed           = want("not_served", new(routev3.RetryPolicy)).GetRetriableHeaders()
)

// The names by which the parts of a configuration find each other.
const (
	authzCluster      = "signet_authz"
	authzFilter       = "envoy.filters.http.ext_authz"
	policyRevisionKey = "signet.policy_revision"
	underscoresKey    = "x-signet-underscores"
	portKey           = "x-signet-port"
	postQuantum       = "X25519MLKEM768"
)

// ofRequests is told of each request, whoever calls.
var ofRequests = []string{underscoresKey, portKey, "x-signet-let-through"}

// safeConditions hold only for requests that were not served.
var safeConditions = []string{"connect-failure", "refused-stream", "retriable-headers"}

// grpcStatuses are the conditions that hold only for an answer with this status.
var grpcStatuses = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func want[M proto.Message](name string, m M) M {
	text, err := texts.ReadFile("want/" + name + ".json")
	if err == nil {
		err = protojson.Unmarshal(text, m)
	}
	if err != nil {
		panic(fmt.Sprintf("internal error: %s: %v", name, err))
	}
	return m
}
