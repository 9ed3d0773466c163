//go:build bench

package bench

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
)

const authzName = "envoy.filters.http.ext_authz"

// authzListeners changes a bootstrap to three static listeners that differ in
// one thing only: "base" asks nobody, each other one asks the socket of its name.
func authzListeners(pki *benchPKI, revision string, sockets map[string]string) func(*bootstrapv3.Bootstrap) {
	return func(b *bootstrapv3.Bootstrap) {
		b.DynamicResources = nil
		b.StaticResources = &bootstrapv3.Bootstrap_StaticResources{Listeners: []*listenerv3.Listener{authzListener(pki, "base", revision)}}
		for name, socket := range sockets {
			b.StaticResources.Listeners = append(b.StaticResources.Listeners, authzListener(pki, name, revision))
			b.StaticResources.Clusters = append(b.StaticResources.Clusters, authzSocket(name, socket))
		}
	}
}

// authzListener answers by itself behind mTLS, and behind the filter.
func authzListener(pki *benchPKI, name, revision string) *listenerv3.Listener {
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:    name,
		NormalizePath: wrapperspb.Bool(true), MergeSlashes: true,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200, Body: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: "ok"},
				}}},
			}},
		}}}},
	}
	if name != "base" {
		hcm.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		hcm.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Chain: true, Uri: true}
		hcm.HttpFilters = append(hcm.HttpFilters, &hcmv3.HttpFilter{Name: authzName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoytest.Any(askSocket(name))}})
		hcm.GetRouteConfig().VirtualHosts[0].TypedPerFilterConfig = map[string]*anypb.Any{authzName: envoytest.Any(&authzv3.ExtAuthzPerRoute{
			Override: &authzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: &authzv3.CheckSettings{
				ContextExtensions: map[string]string{"signet.policy_revision": revision},
			}},
		})}
	}
	hcm.HttpFilters = append(hcm.HttpFilters, &hcmv3.HttpFilter{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: envoytest.Any(&routerv3.Router{})}})
	return &listenerv3.Listener{
		Name: name, Address: loopback(0),
		FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: envoytest.Any(pki.downstream())}},
			Filters:         []*listenerv3.Filter{{Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoytest.Any(hcm)}}},
		}},
	}
}

// askSocket is the filter as package xds generates it.
func askSocket(cluster string) *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		Services: &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}},
			Timeout:         durationpb.New(500 * time.Millisecond),
		}},
		StatusOnError:          &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		EncodeRawHeaders:       true,
		IncludePeerCertificate: true,
		ValidateMutations:      true,
		DecoderHeaderMutationRules: &mutationv3.HeaderMutationRules{
			DisallowSystem:     wrapperspb.Bool(true),
			DisallowExpression: &matcherv3.RegexMatcher{Regex: "host|x-forwarded-.*"},
			DisallowIsError:    wrapperspb.Bool(true),
		},
	}
}

func authzSocket(name, path string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}},
			}}}},
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoytest.Any(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
			}},
		})},
	}
}

// benchPKI is a CA of the benchmark's own with one certificate of each side: the
// caller's SPIFFE ID is what policies decide by.
type benchPKI struct {
	ca, server, serverKey []byte // PEM
	client                *tls.Config
}

func newBenchPKI(t *testing.T, caller string) *benchPKI {
	t.Helper()
	now := time.Now()
	caKey := meshtest.Key(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	leaf := func(serial int64, id string, key crypto.Signer) []byte {
		u, err := url.Parse(id)
		must(t, err)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			NotBefore:   now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		}, ca, key.Public(), caKey)
		must(t, err)
		return der
	}
	serverKey, clientKey := meshtest.Key(t), meshtest.Key(t)
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	must(t, err)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return &benchPKI{
		ca:        block("CERTIFICATE", caDER),
		server:    block("CERTIFICATE", leaf(2, "spiffe://test.example/test/orders", serverKey)),
		serverKey: block("PRIVATE KEY", keyDER),
		client: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // whom it asks is not what is measured
			Certificates: []tls.Certificate{{Certificate: [][]byte{leaf(3, caller, clientKey)}, PrivateKey: clientKey}},
		},
	}
}

func (p *benchPKI) downstream() *tlsv3.DownstreamTlsContext {
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	return &tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: []*tlsv3.TlsCertificate{{CertificateChain: inline(p.server), PrivateKey: inline(p.serverKey)}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: inline(p.ca),
			}},
		},
	}
}
