package authz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/metadata"

	"signet.example/identity"
	"signet.example/proxy"
)

const (
	// xfcc is where Envoy shows the chain that a TLS peer presented. Generated
	// managers set it afresh, whatever the caller sent, and drop the chain from it
	// before the request goes on.
	xfcc = "x-forwarded-client-cert"
	// maxPresented bounds certificate and chain as Envoy writes them, URL-encoded
	// PEM: 8 certificates of 4 KiB have 50 KiB. Ours have 2 KiB.
	maxPresented = 64 << 10
	// peersKept at least, and at most twice as many, of the peers seen last are
	// remembered: a connection's peer is parsed once.
	peersKept = 1024
)

// peers knows what was found out about the chains of callers. Whose a chain is
// does not change; that it is valid now is Envoy's part, and a ban ours.
type peers struct {
	mu     sync.Mutex
	recent map[[sha256.Size]byte]verdict
	older  map[[sha256.Size]byte]verdict
}

type verdict struct {
	id  spiffeid.ID
	err error
}

// verified returns the SPIFFE ID of the TLS peer, whose chain Envoy verified up
// to the bundle, and the zero ID for a peer without TLS. Envoy takes certificates
// that X509-SVID forbids (two URIs, a signing certificate as a leaf, …): what it
// shows of the peer is held to what every verifier of ours demands. A peer that is
// shown in part is refused: nothing is believed of a name alone.
func (p *peers) verified(req *authv3.CheckRequest, chain string) (spiffeid.ID, error) {
	source := req.GetAttributes().GetSource()
	if source.GetPrincipal() == "" && source.GetCertificate() == "" && chain == "" {
		return spiffeid.ID{}, nil
	}
	id, err := p.presented(source.GetCertificate(), chain)
	switch {
	case err != nil:
		return spiffeid.ID{}, &refusedRequest{"signet: peer certificate", err.Error()}
	case id.String() != source.GetPrincipal():
		return spiffeid.ID{}, &refusedRequest{"signet: peer certificate", fmt.Sprintf("it is %s's, and the proxy names another", id)}
	}
	return id, nil
}

// foreign reports whether the proxy says that its callers by TLS are vouched for by
// authorities of a file. They are nobody, whatever their certificate says
// (docs/decisions/059): what a proxy says here takes an identity away and gives none.
func foreign(ctx context.Context) bool {
	return slices.Contains(metadata.ValueFromIncomingContext(ctx, proxy.CallersKey), proxy.ForeignCallers)
}

// ingress is the name of the ingress at which the proxy says that its callers are. It says so
// of callers without TLS: one who shows a certificate is none of them.
func ingress(ctx context.Context) string {
	for _, v := range metadata.ValueFromIncomingContext(ctx, proxy.CallersKey) {
		if name, ok := proxy.IngressOf(v); ok {
			return name
		}
	}
	return ""
}

func (p *peers) presented(leaf, chain string) (spiffeid.ID, error) {
	if leaf == "" || chain == "" {
		return spiffeid.ID{}, errors.New("the proxy does not show it: its configuration is of an older server")
	}
	if len(leaf) > maxPresented || len(chain) > maxPresented {
		return spiffeid.ID{}, fmt.Errorf("longer than %d bytes", maxPresented)
	}
	key := sha256.Sum256([]byte(leaf + "\n" + chain))
	if v, ok := p.known(key); ok {
		return v.id, v.err
	}
	var v verdict
	v.id, v.err = parsePresented(leaf, chain)
	p.keep(key, v)
	return v.id, v.err
}

func (p *peers) known(key [sha256.Size]byte) (verdict, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.recent[key]
	if !ok {
		if v, ok = p.older[key]; ok {
			p.add(key, v)
		}
	}
	return v, ok
}

func (p *peers) keep(key [sha256.Size]byte, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(key, v)
}

// add must be called with the lock held.
func (p *peers) add(key [sha256.Size]byte, v verdict) {
	if len(p.recent) >= peersKept {
		p.recent, p.older = nil, p.recent
	}
	if p.recent == nil {
		p.recent = map[[sha256.Size]byte]verdict{}
	}
	p.recent[key] = v
}

func parsePresented(leaf, chain string) (spiffeid.ID, error) {
	one, err := certificates(leaf)
	if err != nil {
		return spiffeid.ID{}, err
	}
	all, err := certificates(chain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	// What TLS proved is the key of the leaf: the chain must begin with it.
	if len(one) != 1 || !bytes.Equal(one[0].Raw, all[0].Raw) {
		return spiffeid.ID{}, errors.New("the chain does not begin with it")
	}
	return identity.CheckPresented(all)
}

// certificates reads URL-encoded PEM; there is at least one.
func certificates(text string) ([]*x509.Certificate, error) {
	plain, err := url.PathUnescape(text)
	if err != nil {
		return nil, errors.New("it is not URL-encoded PEM")
	}
	var out []*x509.Certificate
	for rest := []byte(plain); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("it is not URL-encoded PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("it is empty")
	}
	return out, nil
}

// takeChain removes the chain from the header that Envoy made, so that a policy
// sees what the application gets, and returns it. Several such headers cannot come
// from a generated manager: then there is no chain.
func takeChain(headers map[string][]string) string {
	values := headers[xfcc]
	if len(values) != 1 {
		return ""
	}
	before, rest, found := strings.Cut(values[0], `;Chain="`)
	chain, after, closed := strings.Cut(rest, `"`)
	if !found || !closed {
		return ""
	}
	headers[xfcc] = []string{before + after}
	return chain
}
