package mesh

import (
	"fmt"
	"reflect"

	"signet.example/internal/manifest"
)

// YAML is the canonical manifest: after defaults, fields in the order of the
// types. It parses to an equal Resource.
func (r *Resource) YAML() ([]byte, error) {
	meta := manifest.Meta{Name: r.ObjectName, Namespace: r.Namespace, Labels: r.Labels, Annotations: r.Annotations}
	text := manifest.Encode(GroupVersion, string(r.Kind), meta, r.Spec)
	if err := r.checkYAML(text); err != nil {
		return nil, err
	}
	return text, nil
}

// checkYAML makes sure of the promise above: what cannot be read back, such as
// a name that Parse would have refused, is not handed out.
func (r *Resource) checkYAML(text []byte) error {
	docs, err := Split(r.ObjectName, text)
	if err == nil && len(docs) == 1 {
		var back *Resource
		if back, err = Parse(docs[0]); err == nil && reflect.DeepEqual(back.Spec, r.Spec) {
			return nil
		}
	}
	if err == nil {
		err = fmt.Errorf("it reads back as another value")
	}
	return fmt.Errorf("write %s %s: %w", r.Kind, r.Name, err)
}
