package xds

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

// lifetimes bounds connections so that what a revoked identity opened is over
// within one SVID lifetime (D13): a connection takes no new
// request after half of it, and a request that began just before then ends
// within the other half. Envoy keeps open connections over a change of trust
// (D13), so nothing else would end them.
type lifetimes struct {
	connection time.Duration // inbound
	stream     time.Duration // inbound, upgraded ones too
	idle       time.Duration // inbound, between requests
	// The client ends connections first, so that it does not send a request into
	// one that the server just closed.
	upstream     time.Duration
	upstreamIdle time.Duration
}

// maxIdle is App Mesh's documented idle bound (AM-timeouts).
const maxIdle = 5 * time.Minute

func lifetimesOf(svid time.Duration) lifetimes {
	half := max(svid/2, time.Second)
	idle := min(maxIdle, half/2)
	return lifetimes{
		connection: half, stream: half, idle: idle,
		upstream: half * 8 / 10, upstreamIdle: idle * 8 / 10,
	}
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
