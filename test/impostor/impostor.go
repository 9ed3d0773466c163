// Package impostor makes what somebody without the key of an identity can show
// in its place: chains of certificates round an honest one, which everybody can
// read off a handshake.
package impostor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"signet.example/test/parts"
)

// Impostor has one key, certificates of its own for it, and what it has seen of
// an honest peer.
type Impostor struct {
	Key    *ecdsa.PrivateKey
	own    []*x509.Certificate // all for Key
	honest []*x509.Certificate // leaf first, the root last
	random *mrand.Rand
}

// New returns an impostor of the peer whose chain this is, leaf first, root last.
func New(t testing.TB, honest ...*x509.Certificate) *Impostor {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed of the impostor's chains: %d", seed)
	im := &Impostor{Key: key, honest: honest, random: mrand.New(mrand.NewPCG(seed, seed))}
	leaf, root := honest[0], honest[len(honest)-1]
	now := leaf.NotBefore
	ca := func(subject pkix.Name, like *x509.Certificate) *x509.Certificate {
		return &x509.Certificate{
			Subject: subject, URIs: like.URIs, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, SubjectKeyId: like.SubjectKeyId,
		}
	}
	end := func() *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "impostor"}, URIs: leaf.URIs, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	sign := func(template, parent *x509.Certificate) *x509.Certificate {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(im.random.Int64N(1<<40)+1), now, leaf.NotAfter
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		im.own = append(im.own, c)
		return c
	}
	plain := sign(ca(pkix.Name{CommonName: "impostor"}, &x509.Certificate{}), nil)
	sign(ca(root.Subject, root), nil) // by its name and id the honest root
	issuing := honest[max(0, len(honest)-2)]
	sign(ca(issuing.Subject, root), plain)
	sign(ca(pkix.Name{CommonName: "impostor"}, leaf), nil) // a CA that has the leaf's own identity
	sign(end(), nil)
	sign(end(), plain)
	sign(end(), im.own[1])
	return im
}

// Chains is how many chains a test tries: 500, in the soak 20,000.
func Chains() int {
	if parts.Soak() {
		return 20_000
	}
	return 500
}

// Chain is the next one: the honest chain with something inserted, repeated, left
// out, moved or prepended, up to four times over.
func (im *Impostor) Chain() []*x509.Certificate {
	chain := slices.Clone(im.honest[:len(im.honest)-im.random.IntN(2)])
	for range 1 + im.random.IntN(4) {
		at := im.random.IntN(len(chain) + 1)
		switch from := im.random.IntN(6); {
		case from == 0: // what S1 was: one of its own before all others
			chain = slices.Insert(chain, 0, im.any(im.own))
		case from == 1:
			chain = slices.Insert(chain, at, im.any(im.own))
		case from == 2:
			chain = slices.Insert(chain, at, im.any(im.honest))
		case from == 3 && len(chain) > 1:
			chain = slices.Delete(chain, min(at, len(chain)-1), min(at, len(chain)-1)+1)
		case from == 4:
			im.random.Shuffle(len(chain), func(i, j int) { chain[i], chain[j] = chain[j], chain[i] })
		default:
			chain = slices.Insert(chain, at, chain[im.random.IntN(len(chain))])
		}
	}
	return chain
}

func (im *Impostor) any(of []*x509.Certificate) *x509.Certificate { return of[im.random.IntN(len(of))] }

// Shows is a chain with a key, as the side of a handshake that shows it.
func Shows(key *ecdsa.PrivateKey, chain ...*x509.Certificate) *tls.Certificate {
	c := &tls.Certificate{PrivateKey: key}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// Handshake joins the two sides of a handshake, and returns both states and what
// went wrong on either side.
func Handshake(t testing.TB, client, server *tls.Config) (seenByClient, seenByServer tls.ConnectionState, err error) {
	t.Helper()
	// What a peer is verified by does not depend on the key exchange, and ML-KEM is most
	// of a handshake's cost under the race detector.
	client = client.Clone()
	client.CurvePreferences = []tls.CurveID{tls.X25519}
	// Not a net.Pipe: one side may still write where the other has given up.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // a test's own
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	defer func() { _ = c.Close() }()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := tls.Server(accepted, server)
	defer func() { _ = s.Close() }()
	deadline := time.Now().Add(30 * time.Second)
	_, _ = raw.SetDeadline(deadline), accepted.SetDeadline(deadline) // a hang fails by it
	answered := make(chan error, 1)
	go func() { answered <- s.HandshakeContext(t.Context()) }()
	err = c.HandshakeContext(t.Context())
	if err != nil {
		_ = raw.Close() // the server need not wait for more
	}
	err = errors.Join(err, <-answered)
	return c.ConnectionState(), s.ConnectionState(), err
}
