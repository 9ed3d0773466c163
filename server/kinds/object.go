package kinds

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
)

// Key names an object. Mesh is empty for Signet's own kinds.
type Key struct{ Kind, Mesh, Name string }

// Node is the key of a virtual node or gateway.
func Node(r proxy.Ref) Key { return Key{string(mesh.NodeName(r).Kind), r.Mesh, r.Name} }

// Mesh is the key of a mesh.
func Mesh(name string) Key { return Key{string(mesh.KindMesh), name, name} }

// String is "NodeGroup edge", or "VirtualNode shop/web".
func (k Key) String() string {
	if k.Mesh == "" || k.Kind == string(mesh.KindMesh) {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Mesh + "/" + k.Name
}

// Compare implements ordered.Key.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Mesh, o.Mesh), strings.Compare(k.Kind, o.Kind), strings.Compare(k.Name, o.Name))
}

// Row is the kind of the object; the zero Kind if there is none.
func (k Key) Row() Kind {
	if row := named(k.Kind); row != nil {
		return *row
	}
	return Kind{}
}

// Object is one manifest, understood.
type Object struct {
	Doc      *manifest.Document
	Resource *mesh.Resource // of App Mesh's kinds
	Value    any            // identity.Entry, … of Signet's kinds
	Revision uint64         // 0 while it is not stored
	Created  uint64         // the revision in which it was first there
	Owner    string         // whose it is, "" for nobody's

	refused  manifest.Errors // by the kind's check
	manifest []byte          // as stored; nil until encoded
}

// ErrForeign is returned for documents of an API group that is not ours to apply.
var ErrForeign = errors.New("API group is not known")

// Parse understands one document of either group. What Refused names is understood.
func Parse(d *manifest.Document, td spiffeid.TrustDomain) (*Object, error) {
	switch d.APIVersion {
	case mesh.GroupVersion:
		return ofMesh(d)
	case mesh.SignetGroupVersion:
		if k := named(d.Kind); k != nil && k.Group == d.APIVersion {
			if k.Own() {
				return k.parse(d, td)
			}
			return ofMesh(d)
		}
		return nil, d.FieldError("kind", fmt.Sprintf("%q is not a kind of %s (%s)", plain.Clip(d.Kind, mostText),
			mesh.SignetGroupVersion, strings.Join(Names(func(k Kind) bool { return k.Group == mesh.SignetGroupVersion }), ", ")))
	}
	return nil, ErrForeign
}

func ofMesh(d *manifest.Document) (*Object, error) {
	r, err := mesh.Parse(d)
	if err != nil {
		return nil, err
	}
	return &Object{Doc: d, Resource: r}, nil
}

// mostText bounds what is repeated of a manifest.
const mostText = 2048

// ReadBack understands what is stored under a key, which must be what was written there.
func ReadBack(k Key, stored []byte, td spiffeid.TrustDomain) (_ *Object, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("stored %s: %w", k, err)
		}
	}()
	docs, err := mesh.Split("store", stored)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("%d documents in one row", len(docs))
	}
	o, err := Parse(docs[0], td)
	if err != nil {
		return nil, err
	}
	if o.Resource != nil {
		o.Resource.Mesh = k.Mesh
	}
	if o.Key() != k {
		return nil, fmt.Errorf("it reads back as %s", o.Key())
	}
	o.manifest = stored
	o.Doc.Forget()
	return o, nil
}

// Key is the name of the object.
func (o *Object) Key() Key {
	if o.Resource != nil {
		return Key{string(o.Resource.Kind), o.Resource.Mesh, o.Resource.Name}
	}
	return Key{o.Doc.Kind, "", o.Doc.Name}
}

// Encode is the canonical manifest after defaults: as it is stored, shown and compared.
func (o *Object) Encode() []byte {
	if o.manifest == nil {
		o.manifest = o.Resource.Encode()
	}
	return o.manifest
}

// SameAs reports whether an object that is not stored yet is what is stored.
func (o *Object) SameAs(old *Object) bool {
	if old == nil || o.Revision > 0 {
		return o == old
	}
	return bytes.Equal(o.Encode(), old.Encode())
}

// Refused is what an apply of the object is refused for, by its field, though one that
// is stored is served: what this version does not translate or could never use.
func (o *Object) Refused() manifest.Errors {
	if o.Resource != nil {
		return slices.Concat(mesh.Unsupported(o.Resource), mesh.Unfilled(o.Resource), mesh.NotPassed(o.Resource))
	}
	return o.refused
}

// Placed are the faults of the object's spec at their places in its document.
func (o *Object) Placed(err error) manifest.Errors { return placed(o.Doc, err) }

// Warnings name what of the manifest has no effect, and what it lets through although
// it is unsafe.
func (o *Object) Warnings() manifest.Errors {
	if o.Resource != nil {
		return mesh.Warnings(o.Resource)
	}
	return mesh.EnvelopeWarnings(o.Doc)
}

// AccessLog is the file to which the proxies of a virtual node or gateway log; "" for
// none, and of nil.
func (o *Object) AccessLog() string {
	if o == nil || o.Resource == nil {
		return ""
	}
	switch s := o.Resource.Spec.(type) {
	case *mesh.VirtualNodeSpec:
		return s.Logging.File()
	case *mesh.VirtualGatewaySpec:
		return s.Logging.File()
	}
	return ""
}

// Refers lists what the object names and must be there, beside what the mesh's graph
// resolves.
func (o *Object) Refers() []Ref {
	if o.Resource != nil {
		return nil
	}
	if k := named(o.Doc.Kind); k.refers != nil {
		return k.refers(o.Value)
	}
	return nil
}
