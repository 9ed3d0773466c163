package ads

import (
	"context"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// secrets serves a Server's views to clients that ask for secrets alone: the
// SecretDiscoveryService, delta and state-of-the-world. An Envoy opens a stream
// for each secret. FetchSecrets, for polling, is not served.
type secrets struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer

	server *Server
}

// RegisterSecrets adds the SecretDiscoveryService to g, as Register does the other.
func (s *Server) RegisterSecrets(g *grpc.Server) {
	secretv3.RegisterSecretDiscoveryServiceServer(g, secrets{server: s})
}

// OfSecrets reports whether a gRPC method is one of the SecretDiscoveryService.
func OfSecrets(method string) bool {
	return strings.HasPrefix(method, "/"+secretv3.SecretDiscoveryService_ServiceDesc.ServiceName+"/")
}

// StreamSecrets serves one state-of-the-world stream until it ends.
func (s secrets) StreamSecrets(g secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	return s.server.serve(g, false, func() request {
		req, err := g.Recv()
		if err == nil {
			req.TypeUrl, err = secretsAlone(req.GetTypeUrl())
		}
		return request{sotw: req, err: err}
	})
}

// DeltaSecrets serves one delta stream until it ends.
func (s secrets) DeltaSecrets(g secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.server.serve(g, true, func() request {
		req, err := g.Recv()
		if err == nil {
			req.TypeUrl, err = secretsAlone(req.GetTypeUrl())
		}
		return request{delta: req, err: err}
	})
}

// FetchSecrets answers Unimplemented.
func (s secrets) FetchSecrets(context.Context, *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return nil, status.Error(codes.Unimplemented, "secrets are served on streams: api_type GRPC or DELTA_GRPC")
}

// secretsAlone is the type of a request, which a client of this service may leave out.
func secretsAlone(typeURL string) (string, error) {
	if typeURL != "" && typeURL != SecretType {
		return "", status.Errorf(codes.InvalidArgument, "type %.200q is not served by the SecretDiscoveryService", typeURL)
	}
	return SecretType, nil
}
