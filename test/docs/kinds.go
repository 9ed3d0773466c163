package docs

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/policy"
)

// build decodes one of Signet's kinds and checks it, as apply does.
func build(d *manifest.Document, td spiffeid.TrustDomain) error {
	switch d.Kind {
	case "NodeGroup":
		return try(d, td, identity.NodeGroupSpec.Build)
	case "Entry":
		return try(d, td, identity.EntrySpec.Build)
	case "Binding":
		return try(d, td, identity.BindingSpec.Build)
	case "JWTIssuer":
		return try(d, td, anywhere(jwt.IssuerSpec.Build))
	case "PolicySource":
		return try(d, td, anywhere(policy.SourceSpec.Build))
	}
	return fmt.Errorf("kind %s is not Signet's", d.Kind)
}

func try[S, V any](d *manifest.Document, td spiffeid.TrustDomain, make func(S, string, spiffeid.TrustDomain) (V, error)) error {
	var spec S
	if err := d.Decode(&spec); err != nil {
		return err
	}
	_, err := make(spec, d.Name, td)
	return err
}

func anywhere[S, V any](make func(S, string) (V, error)) func(S, string, spiffeid.TrustDomain) (V, error) {
	return func(s S, name string, _ spiffeid.TrustDomain) (V, error) { return make(s, name) }
}
