package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"

	"signet.example/policy/tree"
)

// Module is one Rego file.
type Module = tree.Module

// Exemption is a generated allow for a declared health check: Method (GET, or POST of
// [proxy.GRPCHealthCheck]) on exactly Path at a Port of Destination, from Sources, which
// are SPIFFE IDs, and from callers without one at Ingress of the listener. Port 0 is every port, as a server of the release before means it. Name says the
// port and Ingress, too: agents of that release compute the hash that is a revision's id, which has neither.
type Exemption struct {
	Name, Destination, Method, Path string
	Port                            uint32
	Sources, Ingress                []string
}

// Revision is what is distributed and evaluated: tested Rego and the
// exemptions generated beside it. ID is a hash over all the rest, so that the
// same revision has the same id on every server.
type Revision struct {
	ID, Source, Commit string
	Modules            []Module
	Generated
}

// Generated is what a revision has of the mesh that it is for.
type Generated struct {
	Exemptions []Exemption
	// Contested are the packages of nodes that several virtual nodes claim.
	Contested []string
	// Observed are the identities of those whose denials are recorded and not made.
	Observed []string
}

// NewRevision sorts its parts, leaves test modules out and computes the ID.
// Without modules everything except the exemptions is denied.
func NewRevision(source, commit string, modules []Module, of Generated) Revision {
	r := Revision{Source: source, Commit: commit, Generated: Generated{
		Contested: slices.Sorted(slices.Values(of.Contested)), Observed: slices.Sorted(slices.Values(of.Observed)),
	}}
	for _, m := range modules {
		if !m.IsTest() {
			r.Modules = append(r.Modules, m)
		}
	}
	for _, e := range of.Exemptions {
		e.Sources, e.Ingress = slices.Sorted(slices.Values(e.Sources)), slices.Sorted(slices.Values(e.Ingress))
		r.Exemptions = append(r.Exemptions, e)
	}
	slices.SortFunc(r.Modules, func(a, b Module) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Rego, b.Rego))
	})
	slices.SortFunc(r.Exemptions, compareExemptions)
	r.ID = r.hash()
	return r
}

func compareExemptions(a, b Exemption) int {
	return cmp.Or(cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Name, b.Name), slices.Compare(a.Sources, b.Sources), slices.Compare(a.Ingress, b.Ingress))
}

// hash is the first 128 bits of SHA-256 over every string with its length, so
// that no two revisions share their bytes by moving a boundary.
func (r Revision) hash() string {
	h := sha256.New()
	writeStrings(h, "signet policy revision 1", r.Source, r.Commit)
	writeCount(h, len(r.Modules))
	for _, m := range r.Modules {
		writeStrings(h, m.Path, m.Rego)
	}
	writeCount(h, len(r.Exemptions))
	for _, e := range r.Exemptions {
		writeStrings(h, e.Name, e.Destination, e.Method, e.Path)
		writeCount(h, len(e.Sources))
		writeStrings(h, e.Sources...)
	}
	if len(r.Contested) > 0 {
		writeCount(h, len(r.Contested))
		writeStrings(h, r.Contested...)
	}
	if len(r.Observed) > 0 { // not as long as another list, which the text before it could be
		writeStrings(h, "observed")
		writeCount(h, len(r.Observed))
		writeStrings(h, r.Observed...)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func writeStrings(h hash.Hash, ss ...string) {
	for _, s := range ss {
		writeCount(h, len(s))
		h.Write([]byte(s))
	}
}

func writeCount(h hash.Hash, n int) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) //nolint:gosec // a length is never negative
}
