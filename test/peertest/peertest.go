// Package peertest makes ext_authz questions as a generated listener asks them of
// a TLS peer: with its name, its certificate and its chain.
package peertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/peer"

	"signet.example/authz"
)

// AskedBy is the context of a question that comes over a connection of the caller.
func AskedBy(ctx context.Context, c authz.Caller) context.Context {
	_, info, err := authz.Credentials().ServerHandshake(authz.NewConn(nil, c))
	if err != nil {
		panic(err) // nothing of the network is in it
	}
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: info})
}

// Header is where the chain is.
const Header = "x-forwarded-client-cert"

// Present makes id the caller of q, with a leaf of its own; "" presents nobody.
func Present(q *authv3.CheckRequest, id string) *authv3.CheckRequest {
	if id == "" {
		return q
	}
	leaf := Encode(SVID(id))
	return Show(q, id, leaf, leaf)
}

// Show puts name, certificate and chain into q as they are.
func Show(q *authv3.CheckRequest, name, leaf, chain string) *authv3.CheckRequest {
	a := q.GetAttributes()
	a.Source = &authv3.AttributeContext_Peer{Principal: name, Certificate: leaf}
	value := `By=spiffe://test.example/callee;Hash=00;Chain="` + chain + `";URI=` + name
	h := a.GetRequest().GetHttp()
	if h.GetHeaderMap() == nil {
		if h.Headers == nil {
			h.Headers = map[string]string{}
		}
		h.Headers[Header] = value
		return q
	}
	h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: Header, RawValue: []byte(value)})
	return q
}

// Encode writes certificates as Envoy does: URL-encoded PEM.
func Encode(ders ...[]byte) string {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20") // a space is not a plus sign
}

var made sync.Map // of DER by SPIFFE ID

// SVID is a leaf for id that somebody signed: who did is the proxy's to verify.
func SVID(id string) []byte {
	if der, ok := made.Load(id); ok {
		return der.([]byte)
	}
	u, err := url.Parse(id)
	if err != nil {
		panic(err) // no test means to
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // no test means to
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, URIs: []*url.URL{u},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err) // no test means to
	}
	made.Store(id, der)
	return der
}
