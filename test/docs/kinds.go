package docs

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/manifest"
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
		return try(d, td, identity.JWTIssuerSpec.Build)
	case "PolicySource":
		return try(d, td, identity.PolicySourceSpec.Build)
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
