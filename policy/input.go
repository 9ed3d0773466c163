package policy

import (
	"errors"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Input is the document that a policy sees as input.
type Input struct {
	Request Request
	// Connection is what is decided on instead of a request; nil of a request.
	Connection  *Connection
	Source      Peer
	Destination Peer
	// JWT has the verified claims of the end user's token; nil without one.
	JWT *Claims
	// Time is input.time and what time.now_ns returns.
	Time time.Time
}

// Claims are those of one token. They are made once and used by every request
// that brings the token, at the same time too.
type Claims struct{ term *ast.Term }

// NewClaims takes decoded JSON.
func NewClaims(decoded map[string]any) (*Claims, error) {
	v, err := ast.InterfaceToValue(decoded)
	if err != nil {
		return nil, errors.New("claims of the token cannot be represented") // the error would quote them
	}
	return &Claims{ast.NewTerm(v)}, nil
}

// Request is the HTTP request as the upstream gets it, before route rewrites.
type Request struct {
	Method string
	// Path is normalised and without query; Segments are its parts, decoded and
	// without parameters (";...").
	Path     string
	Segments []string
	Query    map[string][]string
	// RawQuery is the query as sent, for exemptions only.
	RawQuery string
	// Host in lower case without port.
	Host string
	// Headers by lower-case name, each line of a repeated header by itself. A
	// policy sees them so as header_lines, and as headers split into values.
	Headers  map[string][]string
	Protocol string
	// Port is that of the listener; 0 is not known, and not there.
	Port uint32
	// What package envoy.authz sees besides, as Envoy has it: path and query in
	// one, the host as it was written, and when the request came.
	RawTarget, Authority, Scheme string
	Received                     time.Time
}

// Connection is one to a listener of bytes: of what goes over it nothing is known.
type Connection struct {
	Protocol string
	// Port is that of the listener.
	Port uint32
}

// Target is the path with its query, as in the request line.
func (r Request) Target() string {
	if r.RawQuery == "" {
		return r.Path
	}
	return r.Path + "?" + r.RawQuery
}

// Peer is one end of a call. The zero Peer is one that is not verified: it has
// no spiffe_id, so that no rule which names a source can match it.
type Peer struct {
	ID spiffeid.ID
	// Ingress of the listener's, by name, at whose addresses a caller without an ID is.
	Ingress string
}
