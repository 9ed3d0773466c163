package server

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"signet.example/internal/paced"
	"signet.example/internal/underway"
	"signet.example/server/fault"
)

// Limits of the agents' API (A28). They are generous for an agent that hosts a
// hundred proxies and bound what a hostile one costs.
const (
	maxRequestBytes = 4 << 20
	maxHeaderBytes  = 16 << 10
	maxStreams      = 1024

	issuePerSecond, issueBurst         = 500, 4096 // SVIDs of one agent
	firstPerSecond, firstBurst         = 0.1, 1    // attestations of one connection, of keys that did not join
	waitingAtOnce                      = 8         // of what strangers show that somebody else has to be asked about; of one address one
	strangersPerSecond, strangersBurst = 20, 200   // and beside those, of one address (of IPv6: a /64)
	joinsPerSecond, joinsBurst         = 20, 200   // new agents of one principal, such as a role of AWS
	attestPerSecond, attestBurst       = 2, 20     // attestations of one agent; it needs one for each start, and serves within two seconds
)

// What agents and strangers may have sent that nobody has read, in bytes: on one
// connection, of one agent or address, of all agents, of all strangers, and of all agents of
// one principal. An agent that comes back says of 500 proxies at once what they have.
var mostUnread = underway.Most{Conn: 32 << 20, Peer: 48 << 20, All: 256 << 20, Others: 96 << 20, Share: 96 << 20}

// agentServerOptions are the transport limits of the agents' listener. A
// connection lives at most half an agent SVID's lifetime, so that an agent that
// has renewed comes back with its new certificate and a chain is never trusted
// for longer than it was checked for.
func agentServerOptions(agentLifetime time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 5 * time.Second, PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionAge: agentLifetime / 2, MaxConnectionAgeGrace: 2 * time.Second,
		}),
	}
}

// limiters holds one token bucket per key.
type limiters struct{ buckets *paced.Each[string] }

func newLimiters(perSecond float64, burst int) *limiters {
	return &limiters{paced.New[string](perSecond, burst)}
}

// Take takes n tokens of key's bucket, or none: its error, for the caller, says when
// there are enough.
func (l *limiters) Take(key string, n int) error {
	switch after, never := l.buckets.Take(key, n); {
	case never:
		return fault.Limit
	case after > 0:
		return fault.Later(after)
	}
	return nil
}
