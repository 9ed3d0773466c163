package kinds

import (
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/mesh"
)

// spec is how manifests of one of Signet's own kinds are understood: S as they are
// written, V what they mean.
type spec[S, V any] struct {
	build    func(S, string, spiffeid.TrustDomain) (V, error)
	check    func(S) error // what an apply is refused for besides; nil: for nothing
	defaults func(*S, V)   // writes what was left out; nil: nothing is shown
	refers   func(V) []Ref // nil: to nothing
}

// row completes the row of the kind.
func (s spec[S, V]) row(k Kind) Kind {
	k.Group, k.parse = mesh.SignetGroupVersion, s.parse
	if s.refers != nil {
		k.refers = func(value any) []Ref { return s.refers(value.(V)) }
	}
	return k
}

// anywhere is the Build of a spec in which no name depends on the trust domain.
func anywhere[S, V any](build func(S, string) (V, error)) func(S, string, spiffeid.TrustDomain) (V, error) {
	return func(s S, name string, _ spiffeid.TrustDomain) (V, error) { return build(s, name) }
}

// ownManifest is how Signet's own kinds are stored and shown.
type ownManifest[S any] struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

type metadata struct {
	Name string `yaml:"name"`
}

func (s spec[S, V]) parse(d *manifest.Document, td spiffeid.TrustDomain) (*Object, error) {
	var written S
	wrong := manifest.AsErrors(d.Decode(&written)) // what could be read is looked at all the same
	var refused manifest.Errors
	if s.check != nil {
		refused = placed(d, s.check(written))
	}
	v, err := s.build(written, d.Name, td)
	if wrong = wrong.With(placed(d, err)); len(wrong) > 0 {
		return nil, wrong.With(refused)
	}
	if s.defaults != nil {
		s.defaults(&written, v)
	}
	b, err := yaml.Marshal(ownManifest[S]{d.APIVersion, d.Kind, metadata{d.Name}, written})
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", d.Kind, d.Name, err)
	}
	return &Object{Doc: d, Value: v, refused: refused, manifest: b}, nil
}

// placed are the faults of a spec at their places in the document.
func placed(d *manifest.Document, err error) manifest.Errors {
	var all manifest.Errors
	for _, f := range identity.FieldErrors(err) {
		all = append(all, d.FieldError(f.Path, f.Msg))
	}
	return all
}
