package kinds

import (
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
	PolicySource = "PolicySource"
)

var table = []Kind{
	appMesh(mesh.KindMesh, "meshes", ""),
	appMesh(mesh.KindVirtualNode, "virtualnodes", "vn"),
	appMesh(mesh.KindVirtualRouter, "virtualrouters", "vr"),
	appMesh(mesh.KindVirtualService, "virtualservices", "vs"),
	appMesh(mesh.KindVirtualGateway, "virtualgateways", "vg"),
	appMesh(mesh.KindGatewayRoute, "gatewayroutes", "gr"),
	appMesh(mesh.KindBackendGroup, "backendgroups", "bg"),

	spec[identity.NodeGroupSpec, identity.NodeGroup]{
		build: identity.NodeGroupSpec.Build,
	}.row(Kind{Name: NodeGroup, Plural: "nodegroups", Short: "ng", Reach: Nobody}),

	spec[identity.EntrySpec, identity.Entry]{
		build: identity.EntrySpec.Build,
		refers: func(e identity.Entry) []Ref {
			return []Ref{{Key{Kind: NodeGroup, Name: e.Group}, "spec.group", "names"}}
		},
	}.row(Kind{Name: Entry, Plural: "entries", Reach: Nobody}),

	spec[identity.BindingSpec, identity.Binding]{
		build: identity.BindingSpec.Build,
		refers: func(b identity.Binding) []Ref {
			return []Ref{
				{Key{Kind: NodeGroup, Name: b.Group}, "spec.group", "names"},
				{Node(proxy.Node(b.VirtualNode.Mesh, b.VirtualNode.Name)), "spec.virtualNode", "grants"},
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
	}.row(Kind{Name: JWTIssuer, Plural: "jwtissuers", Short: "jwt", Reach: Nobody, Single: &Single{
		Of: func(value any) string { return value.(jwt.Issuer).Issuer }, Field: "spec.issuer",
		clash: "JWTIssuer NAME has the same issuer: a token would have two sets of keys",
	}}),

	spec[repo.SourceSpec, repo.Source]{
		build: anywhere(repo.SourceSpec.Build), check: repo.SourceSpec.Check,
		defaults: func(s *repo.SourceSpec, v repo.Source) { s.Branch, s.Poll = v.Branch, v.Poll.String() },
	}.row(Kind{Name: PolicySource, Plural: "policysources", Short: "ps", Reach: Nobody, Single: &Single{
		Of: func(any) string { return "" }, Field: "metadata.name", // one revision is served to all: two repositories have no order between them
		clash: "PolicySource NAME is there already, and one is served at a time: delete it first, or put both sets of rules into one repository",
	}}),
}

// appMesh is the row of a kind that mesh understands. A Mesh is in all of its nodes'
// views, anything else in those of the nodes that mesh's graph has on the way to it.
func appMesh(k mesh.Kind, plural, short string) Kind {
	reach := Callers
	if k == mesh.KindMesh {
		reach = Everyone
	}
	return Kind{Name: string(k), Plural: plural, Short: short, Group: mesh.GroupVersion, Served: k.Translated(), Reach: reach}
}
