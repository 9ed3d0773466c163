package proxy

import (
	"encoding/json"
	"strings"
	"time"
)

// Class says why Envoy denied a request by itself, in [HeaderDenied] and in the
// record. The first two are causes of the agent's own denials, too.
type Class string

// The classes.
const (
	ClassUnavailable Class = "unavailable" // the agent gave no answer
	ClassError       Class = "error"       // the agent's answer broke the rules for mutations
	ClassAmbiguous   Class = "ambiguous"   // two readers could understand the request differently
	ClassUpgrade     Class = "upgrade"     // to a protocol that is not carried
	ClassUndeclared  Class = "undeclared"  // the caller's node does not declare the host as a backend
	ClassMalformed   Class = "malformed"   // it breaks the rules of HTTP, or the bounds on a request
)

// DenialMessage marks the record of a denial among the lines of a proxy.
const DenialMessage = "native denial"

// Denial is the record of a denial that Envoy made by itself: a line of JSON on
// its standard error. It has no query, header or body, which may carry secrets
// (D21).
type Denial struct {
	Message string    `json:"msg"`
	Time    time.Time `json:"time"`
	ID      string    `json:"decision_id"` // as Envoy writes it; ParseDecisionID has its form here
	Class   Class     `json:"class"`
	Details string    `json:"details"` // Envoy's response code details
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Host    string    `json:"host"`   // as the caller wrote it
	Source  string    `json:"source"` // URI of the peer's certificate
	Peer    string    `json:"peer"`   // address and port of the peer
	Status  any       `json:"status"`
}

// ParseDenial reads one line of a proxy's standard error. ok is false for every
// line that is not the record of a denial with an id.
func ParseDenial(line string) (d Denial, ok bool) {
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &d) != nil || d.Message != DenialMessage {
		return Denial{}, false
	}
	if d.ID, ok = ParseDecisionID(d.ID); !ok {
		return Denial{}, false
	}
	return d, true
}
