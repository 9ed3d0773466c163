package ads

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// Resource is one xDS resource, encoded once and shared by every stream that
// sends it. It is immutable after creation.
type Resource struct {
	// Type is the type URL of the message in Body.
	Type string
	// Name is what clients subscribe to.
	Name string
	// Version stands for the content: equal versions mean that nothing needs to be sent.
	Version string
	// Body is the serialized message, the value of the Any that travels.
	Body []byte

	// What precedes Body on the wire, in each variant: most are sent in one alone.
	delta, sotw atomic.Pointer[[]byte]

	refs atomic.Pointer[string] // the endpoint assignment that a Cluster waits for
	any  atomic.Pointer[bool]   // whether routes may lead to any cluster
}

// NewResource encodes m deterministically and names its version by its content.
func NewResource(typeURL, name string, m proto.Message) (*Resource, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("ads: encode %s %q: %w", typeURL, name, err)
	}
	return NewEncoded(typeURL, name, body)
}

// NewEncoded is NewResource of a message that was encoded deterministically already.
func NewEncoded(typeURL, name string, body []byte) (*Resource, error) {
	if typeURL == "" || name == "" {
		return nil, errors.New("ads: a resource needs a type and a name")
	}
	if !utf8.ValidString(name) || len(name) > maxName {
		return nil, fmt.Errorf("ads: name of a %s is not UTF-8 of at most %d bytes", typeURL, maxName)
	}
	h := sha256.New()
	writePart(h, typeURL)
	writePart(h, name)
	writeBody(h, body)
	return &Resource{Type: typeURL, Name: name, Version: sum(h), Body: body}, nil
}

// Salted returns the resource under a version that changes with salt as well.
// An endpoint assignment is salted with its cluster's version: Envoy warms a
// changed cluster only once its endpoints arrive again, and does not ask for
// them (R3, envoy#31535).
func (r *Resource) Salted(salt string) *Resource {
	return &Resource{Type: r.Type, Name: r.Name, Version: digest(r.Version, salt), Body: r.Body}
}

// digest hashes parts unambiguously, each preceded by its length.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		writePart(h, p)
	}
	return sum(h)
}

// writePart adds a length-prefixed part to h.
func writePart(h hash.Hash, p string) {
	_, _ = h.Write(append(appendLength(make([]byte, 0, 8+len(p)), len(p)), p...)) // hash.Hash never returns an error
}

// writeBody is writePart without a copy.
func writeBody(h hash.Hash, p []byte) {
	_, _ = h.Write(appendLength(nil, len(p))) // as above
	_, _ = h.Write(p)
}

func appendLength(b []byte, n int) []byte { return append(strconv.AppendInt(b, int64(n), 10), ':') }

// sum is the first 16 hex digits of h.
func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }
