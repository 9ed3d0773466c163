package identity

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// SPIFFE-ID 2.3: 2048 bytes must be supported and more should not be made;
// a trust domain name is the host of a URI, so at most 255 bytes.
const (
	maxIDBytes          = 2048
	maxTrustDomainBytes = 255
)

// reserved is the first path segment of Signet's own identities. No mesh may
// be named so, and no Entry may claim an ID under it.
const reserved = "signet"

// ParseTrustDomain returns the trust domain of a name such as "prod.example".
// A SPIFFE ID is refused: a name is a name.
func ParseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	if len(name) > maxTrustDomainBytes {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain of %d bytes: at most %d", len(name), maxTrustDomainBytes)
	}
	if strings.Contains(name, ":") {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q: a name without scheme or port is needed", name)
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %s: %w", Abbreviate(name), err)
	}
	// SPIFFE-ID 2.1 leaves room for "a..b" and "..": no certificate with such a
	// host in its URI can be read by X.509 libraries, so no domain is named so.
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q: empty label between dots", name)
	}
	return td, nil
}

// ParseID parses a SPIFFE ID by SPIFFE-ID 2, byte for byte: nothing is
// normalised, so that equal identities have equal strings.
func ParseID(s string) (spiffeid.ID, error) {
	if len(s) > maxIDBytes { // SPIFFE-ID 2.3
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID of %d bytes: at most %d", len(s), maxIDBytes)
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %s: %w", Abbreviate(s), err)
	}
	if len(id.TrustDomain().Name()) > maxTrustDomainBytes {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %s: trust domain of more than %d bytes", Abbreviate(s), maxTrustDomainBytes)
	}
	return id, nil
}

// ForVirtualNode returns spiffe://<td>/<mesh>/<node>, the default identity of
// a virtual node. A mesh named "signet" is refused.
func ForVirtualNode(td spiffeid.TrustDomain, mesh, node string) (spiffeid.ID, error) {
	if mesh == reserved {
		return spiffeid.ID{}, fmt.Errorf("mesh %q: the name is reserved for Signet's own identities", mesh)
	}
	return build(td, mesh, node)
}

// ForAgent returns spiffe://<td>/signet/agent/<id>.
func ForAgent(td spiffeid.TrustDomain, id string) (spiffeid.ID, error) {
	return build(td, reserved, "agent", id)
}

// ForServer returns spiffe://<td>/signet/server/<name>.
func ForServer(td spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	return build(td, reserved, "server", name)
}

// IsReserved reports whether id is /signet or lies under it, where only Signet
// itself hands out identities.
func IsReserved(id spiffeid.ID) bool {
	return id.Path() == "/"+reserved || strings.HasPrefix(id.Path(), "/"+reserved+"/")
}

// AgentID returns the agent's own name from its SPIFFE ID.
func AgentID(id spiffeid.ID) (string, bool) { return lastOf(id, "agent") }

// ServerName returns the server's own name from its SPIFFE ID.
func ServerName(id spiffeid.ID) (string, bool) { return lastOf(id, "server") }

func lastOf(id spiffeid.ID, role string) (string, bool) {
	name, ok := strings.CutPrefix(id.Path(), "/"+reserved+"/"+role+"/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", false
	}
	return name, true
}

// build checks each segment by SPIFFE-ID 2.2 (which leaves no room for "/",
// "%2f", ".." or NUL) and the whole by 2.3.
func build(td spiffeid.TrustDomain, segments ...string) (spiffeid.ID, error) {
	if td.IsZero() {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID of %q: no trust domain", segments)
	}
	for _, s := range segments {
		if err := spiffeid.ValidatePathSegment(s); err != nil {
			return spiffeid.ID{}, fmt.Errorf("SPIFFE ID segment %s: %w", Abbreviate(s), err)
		}
	}
	return ParseID(td.IDString() + "/" + strings.Join(segments, "/"))
}
