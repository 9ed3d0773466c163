package authz

import (
	"context"
	"fmt"
	"strconv"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/policy"
	"signet.example/proxy"
)

// protocolTCP is what a connection has in the place of an HTTP version, and of a method
// in its record.
const protocolTCP = "tcp"

// connectionInput is newInput of a connection, about which Envoy's network filter asks
// once: who is at its two ends is all that is known. Of the caller's chain that filter
// shows the leaf alone; the proxy verified the rest of it up to the bundle (020, 057).
func (p *peers) connectionInput(ctx context.Context, req *authv3.CheckRequest, caller Caller, now time.Time) (policy.Input, error) {
	in := policy.Input{Destination: policy.Peer{ID: caller.Destination}, Time: now}
	port := listenerPort(ctx, req)
	if port == 0 {
		return in, &refusedRequest{"signet: not HTTP", "the question has no HTTP request, and no port of a connection"}
	}
	in.Connection = &policy.Connection{Protocol: protocolTCP, Port: port}
	if foreign(ctx) {
		return in, nil
	}
	id, err := p.verified(req, req.GetAttributes().GetSource().GetCertificate())
	if in.Source.ID = id; id.IsZero() && err == nil {
		in.Source.Ingress = ingress(ctx)
	}
	return in, err
}

// listenerPort is that of the listener that asks, by the listener's own configuration: the
// connection's end may be what its sender wrote in a header of the PROXY protocol. The
// configuration of an older server has only that end. It is 0 where the question has no port.
func listenerPort(ctx context.Context, req *authv3.CheckRequest) uint32 {
	if said := metadata.ValueFromIncomingContext(ctx, proxy.PortKey); len(said) > 0 {
		n, err := strconv.ParseUint(said[0], 10, 16)
		if err != nil || len(said) > 1 {
			return 0
		}
		return uint32(n)
	}
	return req.GetAttributes().GetDestination().GetAddress().GetSocketAddress().GetPortValue()
}

// connection records what is known of one, and has its id told to the proxy: there is
// no answer in which the caller could be told.
func (a *answer) connection(c *policy.Connection) {
	a.record.Method, a.record.Host = protocolTCP, fmt.Sprintf("port %d", c.Port)
	a.metadata = &structpb.Struct{Fields: map[string]*structpb.Value{proxy.DecisionIDField: structpb.NewStringValue(a.record.ID)}}
}
