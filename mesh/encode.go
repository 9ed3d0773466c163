package mesh

import "signet.example/internal/manifest"

// Encode is the canonical manifest: after defaults, fields in the order of the
// types. It parses to an equal Resource; who keeps it reads it back and compares,
// since a Resource that Parse did not make can hold what no manifest can.
func (r *Resource) Encode() []byte {
	meta := manifest.Meta{Name: r.ObjectName, Namespace: r.Namespace, Labels: r.Labels, Annotations: r.Annotations}
	return manifest.Encode(infoOf(r.Kind).Group, string(r.Kind), meta, r.Spec)
}
