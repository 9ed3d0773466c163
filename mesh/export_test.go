package mesh

import (
	"bytes"
	"reflect"
)

// SpecYAML writes a spec as it is, before defaults and unchecked.
func SpecYAML(spec any) string {
	var b bytes.Buffer
	writer{&b}.member("spec", reflect.ValueOf(spec).Elem(), "")
	return b.String()
}

// NewSpec is an empty spec of the kind.
func NewSpec(k Kind) any { return newSpec(k) }
