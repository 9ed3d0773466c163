package kinds

import (
	"signet.example/attestation"
	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/policy/repo"
	"signet.example/proxy"
)

// Signet's own kinds.
const (
	NodeGroup    = "NodeGroup"
	Entry        = "Entry"
	Binding      = "Binding"
	JWTIssuer    = "JWTIssuer"
	ALBIssuer    = "ALBIssuer"
	PolicySource = "PolicySource"
)

// table is App Mesh's kinds, which mesh lists, and Signet's own.
var table = append(appMesh(), own...)

var own = []Kind{
	spec[identity.NodeGroupSpec, identity.NodeGroup]{
		build: identity.NodeGroupSpec.Build,
	}.row(Kind{Name: NodeGroup, Plural: "nodegroups", Short: "ng", Reach: Nobody, Listed: true}),

	spec[identity.EntrySpec, identity.Entry]{
		build: identity.EntrySpec.Build, check: func(s identity.EntrySpec) error { return attestation.CheckWorkload(s.Selectors) },
		refers: func(e identity.Entry) []Ref {
			return []Ref{{Key{Kind: NodeGroup, Name: e.Group}, "spec.group", "names"}}
		},
	}.row(Kind{Name: Entry, Plural: "entries", Reach: Nobody}),

	spec[identity.BindingSpec, identity.Binding]{
		build: identity.BindingSpec.Build, check: func(s identity.BindingSpec) error { return attestation.CheckWorkload(s.Selectors) },
		refers: func(b identity.Binding) []Ref {
			ref := proxy.For(b.VirtualNode.Mesh, b.VirtualNode.Name, b.VirtualNode.Gateway)
			return []Ref{
				{Key{Kind: NodeGroup, Name: b.Group}, "spec.group", "names"},
				{Node(ref), "spec." + string(ref.Kind), "grants"},
			}
		},
	}.row(Kind{Name: Binding, Plural: "bindings", Reach: Everyone}), // every caller of its node calls by mTLS

	spec[jwt.IssuerSpec, jwt.Issuer]{
		build: anywhere(jwt.IssuerSpec.Build), check: jwt.IssuerSpec.Check,
		defaults: func(s *jwt.IssuerSpec, v jwt.Issuer) {
			if v.JWKSURL != "" {
				s.Refresh = v.Refresh.String()
			}
		},
	}.row(Kind{Name: JWTIssuer, Plural: "jwtissuers", Short: "jwt", Reach: Nobody, Listed: true, Single: &Single{
		Of: func(value any) string { return value.(jwt.Issuer).Issuer }, Field: "spec.issuer",
		clash: "JWTIssuer NAME has the same issuer: a token would have two sets of keys",
	}}),

	spec[jwt.ALBSpec, jwt.Issuer]{
		build:    anywhere(jwt.ALBSpec.Build),
		defaults: func(s *jwt.ALBSpec, v jwt.Issuer) { s.KeysURL = v.ALB.KeysURL },
	}.row(Kind{Name: ALBIssuer, Plural: "albissuers", Short: "alb", Reach: Nobody, Listed: true}),

	spec[repo.SourceSpec, repo.Source]{
		build: anywhere(repo.SourceSpec.Build), check: repo.SourceSpec.Check,
		defaults: func(s *repo.SourceSpec, v repo.Source) { s.Branch, s.Poll = v.Branch, v.Poll.String() },
	}.row(Kind{Name: PolicySource, Plural: "policysources", Short: "ps", Reach: Nobody, Listed: true, Single: &Single{
		Of: func(any) string { return "" }, Field: "metadata.name", // one revision is served to all: two repositories have no order between them
		clash: "PolicySource NAME is there already, and one is served at a time: delete it first, or put both sets of rules into one repository",
	}}),
}

// appMesh are the rows of the kinds that mesh understands. A Mesh and its options are in all of its
// nodes' views, anything else in those of the nodes that mesh's graph has on the way to it.
func appMesh() []Kind {
	var rows []Kind
	for _, k := range mesh.AllKinds() {
		reach := Callers
		if k.Wide() {
			reach = Everyone
		}
		rows = append(rows, Kind{Name: string(k.Kind), Plural: k.Plural, Short: k.Short, Group: k.Group, Reach: reach})
	}
	return rows
}
