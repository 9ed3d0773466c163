package answers

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"signet.example/proxy"
)

// Way is the direction in which a proxy was asked.
type Way string

// The ways.
const (
	In  Way = "in"  // by others, for the application beside it
	Out Way = "out" // by the application beside it, for others
)

// Message marks the line of an answer among the lines of a proxy.
const Message = "native denial"

// Line is what Envoy writes of an answer that it made by itself: one line of JSON on its
// standard error. It has no query, header or body, which may carry secrets (D21).
type Line struct {
	Message string    `json:"msg"`
	Time    time.Time `json:"time"`
	// ID is what the caller was told, and Unique is one that only this line has: of what had no
	// answer in HTTP. As Envoy writes them; ParseLine leaves one in ID, in our form.
	ID     string      `json:"decision_id"`
	Unique string      `json:"id"`
	Class  proxy.Class `json:"class"` // of a denial
	Way    Way         `json:"way"`   // "" in lines for an agent of the release before
	// Details, Flags and Closed are Envoy's words for what it found.
	Details string `json:"details"`
	Flags   string `json:"flags"`
	Closed  string `json:"closed"`
	// CallerTLS and CalleeTLS are why a handshake with either failed.
	CallerTLS string `json:"caller_tls"`
	CalleeTLS string `json:"callee_tls"`
	Status    int    `json:"status"` // 0 of a connection
	Method    string `json:"method"` // "tcp" of a connection
	Path      string `json:"path"`
	Host      string `json:"host"`    // as the caller wrote it
	Source    string `json:"source"`  // URI of the peer's certificate
	Peer      string `json:"peer"`    // address and port of the peer
	Cluster   string `json:"cluster"` // that was chosen
	Callee    string `json:"callee"`  // address and port that was tried last
	Service   string `json:"service"` // the virtual host that takes its host, "" for none
}

// ParseLine reads one line of a proxy's standard error. ok is false for every line that is
// not that of an answer with an id.
func ParseLine(line string) (l Line, ok bool) {
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &l) != nil || l.Message != Message {
		return Line{}, false
	}
	// What Envoy's inspector says of a connection that is not TLS is no failure of one: it is
	// looked at for every connection, to find its filter chain.
	if strings.HasPrefix(l.CallerTLS, notTLS) {
		l.CallerTLS = ""
	}
	if l.Way == In && strings.HasPrefix(l.Cluster, proxy.EgressClusterPrefix) && slices.ContainsFunc(behind, func(d string) bool { return is(d, l.Details) }) {
		l.Way = Out
	}
	for _, id := range []string{l.ID, l.Unique} {
		if l.ID, ok = proxy.ParseDecisionID(id); ok {
			return l, true
		}
	}
	return Line{}, false
}

// behind are Envoy's details of what became of a request beyond its proxy. A gateway has no
// application: it calls as the proxy of a caller does, and its callee is at fault.
var behind = []string{"no_healthy_upstream", "cluster_not_found", "upstream_*", "response_timeout", "stream_idle_timeout", "request_payload_exceeded_retry_buffer_limit"}

// notTLS begins what the inspector says; failures of handshakes begin with TLS_error:.
const notTLS = "TLS_error|"

// egressCluster is the name of a cluster of a virtual node, as App Mesh wrote it, behind that
// of the mesh.
var egressCluster = regexp.MustCompile(`^(.+)_(?:http|http2|grpc|tcp)_[0-9]+(?:_via_.*)?$`)

// CalleeOf is the virtual node that a cluster of a mesh's proxy leads to; false where it is
// the application's, or none.
func CalleeOf(mesh, cluster string) (proxy.Ref, bool) {
	rest, ok := strings.CutPrefix(cluster, proxy.EgressClusterPrefix+mesh+"_")
	m := egressCluster.FindStringSubmatch(rest)
	if !ok || m == nil {
		return proxy.Ref{}, false
	}
	return proxy.Node(mesh, m[1]), true
}
