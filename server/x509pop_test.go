package server_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/attestation/x509pop"
	"signet.example/server"
	"signet.example/test/parts"
)

// racks is a group by selectors, and what hangs on it.
const racks = registry + `
---
apiVersion: signet.example/v1alpha1
kind: NodeGroup
metadata: {name: racks}
spec: {selectors: ["x509pop:subject:cn:rack-1"]}
---
apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: disk}
spec: {group: racks, spiffeID: "spiffe://test.example/disk", selectors: ["unix:uid:1000"]}
`

// groupOf is a NodeGroup by selectors.
func groupOf(name string, selectors ...string) string {
	return fmt.Sprintf("---\napiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: %s}\nspec: {selectors: [%q]}\n", name, strings.Join(selectors, `", "`))
}

// newRacks runs a server that takes certificates of an authority.
func newRacks(t *testing.T) (*rig, *parts.HostCA) {
	t.Helper()
	authority := parts.NewHostCA(t, "racks")
	r := newRig(t)
	r.halt()
	r.cfg.Join.X509PoP.Roots = parts.WriteCerts(t, authority.Cert)
	r.start()
	r.apply(racks)
	return r, authority
}

// line is a connection of a host's that TLS was spoken on before gRPC has it.
type line struct {
	tls  *tls.Conn
	conn *grpc.ClientConn
}

func (h *host) connect() line {
	h.t.Helper()
	l, err := h.connectTo(h.rig.addr.Agents)
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func (h *host) connectTo(address string) (line, error) {
	raw, err := new(net.Dialer).DialContext(h.t.Context(), "tcp", address)
	if err != nil {
		return line{}, err
	}
	c := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{h.hostKey}, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, //nolint:gosec // the server is under test
	})
	h.t.Cleanup(func() { _ = c.Close() })
	if err := c.HandshakeContext(h.t.Context()); err != nil {
		return line{}, err
	}
	conn, err := grpc.NewClient("passthrough:///made", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(anywhere{h.instance}), grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return c, nil }))
	if err != nil {
		return line{}, err
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	return line{c, conn}, nil
}

// channel is the connection as this host's evidence is bound to it.
func (h *host) channel(l line) nodes.Channel {
	h.t.Helper()
	cert, err := x509.ParseCertificate(h.hostKey.Certificate[0])
	if err != nil {
		h.t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return nodes.Channel{TrustDomain: spiffeid.RequireTrustDomainFromString(trustDomain), HostKey: sum[:], TLS: l.tls.ConnectionState()}
}

// evidence is what a host with these files gives on a connection.
func (h *host) evidence(l line, certificate, key string) *api.AttestRequest {
	h.t.Helper()
	give, err := nodes.HostConfig{X509PoP: x509pop.Host{Certificate: certificate, Key: key}}.Evidence()
	if err != nil {
		h.t.Fatal(err)
	}
	req := &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "rack-1"}
	if err := give(h.t.Context(), h.channel(l), req); err != nil {
		h.t.Fatal(err)
	}
	return req
}

// prove attests by a certificate.
func (h *host) prove(certificate, key string) error {
	l := h.connect()
	return h.send(l, h.evidence(l, certificate, key))
}

func (h *host) send(l line, req *api.AttestRequest) error {
	resp, err := api.NewAgentAPIClient(l.conn).Attest(h.t.Context(), req)
	if err != nil {
		return err
	}
	h.id = resp.GetAgentId()
	h.svid = tls.Certificate{Certificate: resp.GetChain(), PrivateKey: h.key}
	h.conn = dial(h.t, h.rig.addr.Agents, h.svid, nil, grpc.WithPerRPCCredentials(h.instance))
	return nil
}

// may lists the entries, of all there are, of which the host is given certificates.
func (h *host) may() []string {
	h.t.Helper()
	all := []string{"job", "secret", "disk"}
	res, err := h.issue(all...)
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for i, r := range res {
		if r.GetError() == "" {
			list = append(list, all[i])
		}
	}
	return list
}

func (r *rig) agent(id string) *api.AgentInfo {
	r.t.Helper()
	resp, err := r.admin.Agents(r.t.Context(), &api.AgentsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range resp.GetAgents() {
		if a.GetId() == id {
			return a
		}
	}
	r.t.Fatalf("no agent %s among %v", id, resp)
	return nil
}

func TestAHostWithACertificateOfItsOperatorJoinsTheGroupOfItsSelectors(t *testing.T) {
	r, authority := newRacks(t)
	certificate, key := authority.Host("rack-1")
	h := newHost(r)
	if err := h.prove(certificate, key); err != nil {
		t.Fatal(err)
	}
	if got := h.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("it is given %v", got)
	}
	check := func(when string) {
		t.Helper()
		a := r.agent(h.id)
		if a.GetGroup() != "racks" || a.GetAttestation() != "x509pop" || !slices.Contains(a.GetSelectors(), "x509pop:subject:cn:rack-1") {
			t.Errorf("%s: %v", when, a)
		}
	}
	check("joined")
	if rows := rowsOf(t, "attest"); !strings.Contains(rows[0], "joined group racks") || !strings.Contains(rows[0], "x509pop:subject:cn:rack-1") {
		t.Errorf("%q", rows)
	}
	// It is known by its host key from now on, also to a server that was started again.
	r.halt()
	r.start()
	check("after a restart of the server")
	if err := h.attest(""); err != nil {
		t.Error(err)
	}
	if got := h.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("it comes back, and is given %v", got)
	}
	r.join("front") // tokens go on as before
}

func TestAGroupThatIsChangedTakesItsHostsInAndLetsThemGo(t *testing.T) {
	r, authority := newRacks(t)
	h := newHost(r)
	if err := h.prove(authority.Host("rack-1")); err != nil {
		t.Fatal(err)
	}
	h.stay()
	token := r.join("front")
	for _, c := range []struct {
		manifests string
		group     string
		may       []string
		finding   string
	}{
		{groupOf("racks", "x509pop:subject:cn:rack-2"), "", nil, "no NodeGroup's selectors fit"},
		{groupOf("racks", "x509pop:subject:cn:rack-1"), "racks", []string{"disk"}, ""},
		{groupOf("front", "x509pop:subject:cn:rack-1"), "", nil, "front, racks"},
		{groupOf("racks", "x509pop:subject:cn:rack-3"), "front", []string{"job"}, ""},
	} {
		r.apply(c.manifests)
		if got := r.agent(h.id).GetGroup(); got != c.group {
			t.Errorf("%s: it is in group %q, want %q", c.manifests, got, c.group)
		}
		if got := h.may(); !slices.Equal(got, c.may) {
			t.Errorf("%s: it is given %v, want %v", c.manifests, got, c.may)
		}
		if c.finding != "" {
			awaitFinding(t, r, "SIG024", c.finding)
		}
	}
	if got := token.may(); !slices.Equal(got, []string{"job"}) {
		t.Errorf("the host whose token named the group is given %v", got)
	}
	if len(r.findings("SIG024", "")) > 0 {
		t.Error("a finding about a host that is in a group")
	}
}

func TestAHostThatNoGroupFitsOrSeveralDoDoesNotJoin(t *testing.T) {
	r, authority := newRacks(t)
	stranger := newHost(r)
	wantCode(t, stranger.prove(authority.Host("rack-9")), codes.PermissionDenied, "no NodeGroup", "x509pop:subject:cn:rack-9")
	r.apply(groupOf("more", "x509pop:subject:cn:rack-1"))
	wantCode(t, newHost(r).prove(authority.Host("rack-1")), codes.PermissionDenied, "more, racks")
	for _, h := range []*host{stranger, newHost(r)} {
		wantCode(t, h.attest(""), codes.Unauthenticated)
	}
	_, err := r.tryApply(groupOf("typo", "x509pop:subject:cm:rack-1"))
	wantCode(t, err, codes.InvalidArgument, "spec.selectors[0]", "known are")
}

func TestEvidenceIsOfOneConnectionAndOneHostKey(t *testing.T) {
	r, authority := newRacks(t)
	certificate, key := authority.Host("rack-1")
	h, thief := newHost(r), newHost(r)
	one := h.connect()
	seen := h.evidence(one, certificate, key)
	const refused = "not that of the certificate's key over this connection"
	wantCode(t, thief.send(thief.connect(), seen), codes.PermissionDenied, refused) // another host key
	wantCode(t, h.send(h.connect(), seen), codes.PermissionDenied, refused)         // another connection of its own
	copied := newHost(r)
	copied.hostKey = h.hostKey
	wantCode(t, copied.send(copied.connect(), seen), codes.PermissionDenied, refused) // another time
	if err := h.send(one, seen); err != nil {
		t.Errorf("where it was made: %v", err)
	}
	// A server in between shows what was given on one connection on another, and so has none.
	between := thief.connect()
	wantCode(t, thief.send(between, thief.evidence(h.connect(), certificate, key)), codes.PermissionDenied, refused)
	// Somebody else's challenge with one's own certificate of another authority.
	other := parts.NewHostCA(t, "racks")
	wantCode(t, newHost(r).prove(other.Host("rack-1")), codes.PermissionDenied, "x509pop")
}

func TestACertificateIsOneAgentsWhateverHostKeyComesWithIt(t *testing.T) {
	r, authority := newRacks(t)
	certificate, key := authority.Host("rack-1")
	h := newHost(r)
	if err := h.prove(certificate, key); err != nil {
		t.Fatal(err)
	}
	h.stay()
	first := h.conn
	thief := newHost(r)
	wantCode(t, thief.prove(certificate, key), codes.FailedPrecondition, "connected already", h.id)
	if f := awaitFinding(t, r, "SIG020", "127.0.0.1"); !strings.Contains(f.GetFix(), "a certificate for a key of its own") || !strings.Contains(f.GetFix(), "until a day after") {
		t.Errorf("the fix is %q", f.GetFix())
	}
	if err := h.prove(certificate, key); err != nil { // the same run, again
		t.Error(err)
	}
	_ = first.Close()
	eventually(t, "its session is gone", func() bool { return len(connected(t, r)) == 0 })
	lost := newHost(r) // the host that lost its data_dir
	if err := lost.prove(certificate, key); err != nil || lost.id != h.id {
		t.Fatalf("%s came back as %s, %v", h.id, lost.id, err)
	}
	wantCode(t, h.attest(""), codes.Unauthenticated) // by the key that it had before
	r.ban(h.id)
	for _, again := range []*host{lost, newHost(r), h} {
		wantCode(t, again.prove(certificate, key), codes.PermissionDenied, "is banned", "a certificate for another key")
	}
	if a := r.agent(h.id); a.GetState() != api.AgentInfo_BANNED {
		t.Errorf("%v", a)
	}
	r.halt()
	r.start()
	wantCode(t, newHost(r).prove(certificate, key), codes.PermissionDenied, "is banned")
}

// untilDry sends evidence with a certificate request that is refused where it is looked
// at: after the payment, before anything is verified. It returns how often that was paid
// for, but for as many as are free on each connection, and what had come into the bucket by then.
func untilDry(t *testing.T, conn *grpc.ClientConn, req *api.AttestRequest, free int, perSecond float64, burst int) (paid int, most float64) {
	t.Helper()
	req.Csr = []byte("no certificate request")
	paid = -free
	for begun := time.Now(); ; paid++ {
		_, err := api.NewAgentAPIClient(conn).Attest(t.Context(), req, grpc.WaitForReady(true))
		switch status.Code(err) {
		case codes.ResourceExhausted:
			return paid, float64(burst) + perSecond*time.Since(begun).Seconds()
		case codes.Unavailable: // a stranger's connection has its end; the next one follows
			paid -= 1 + free
			continue
		}
		wantCode(t, err, codes.InvalidArgument, "certificate request") // nothing is verified
		if paid > burst {
			t.Fatal("there is no end of it")
		}
	}
}

func TestEvidenceIsPaidForBeforeItIsVerified(t *testing.T) {
	r, authority := newRacks(t)
	certificate, key := authority.Host("rack-1")
	bad := func(h *host, l line) *api.AttestRequest {
		req := h.evidence(l, certificate, key)
		chain := req.GetX509Pop().GetChain()
		return &api.AttestRequest{Csr: req.GetCsr(), Evidence: &api.AttestRequest_X509Pop{X509Pop: &api.X509PoP{
			Chain: slices.Repeat(chain, 4), Signature: append([]byte{0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01}, rand.Text()[0]),
		}}}
	}
	const weight = 5 // three issuers that are sent, one root of that name, the proof
	joined := r.join("front")
	h := newHost(r)
	for who, c := range map[string]struct {
		h         *host
		free      int
		perSecond float64
		burst     int
	}{
		"a stranger":         {h, 1, server.StrangersPerSecond, server.StrangersBurst},
		"a host that joined": {joined, 0, server.AttestPerSecond, server.AttestBurst},
	} {
		l := c.h.connect()
		paid, most := untilDry(t, dial(t, r.addr.Agents, c.h.hostKey, nil), bad(c.h, l), c.free, c.perSecond, c.burst)
		if float64(paid*weight) > most || paid == 0 {
			t.Errorf("%s: %d times evidence of weight %d was paid out of %.1f", who, paid, weight, most)
		}
	}
	l := h.connect()
	floodUntilDry(t, dial(t, r.addr.Agents, selfSigned(t), nil), bad(h, l))
	r.join("front") // by a good token, which is nobody else's
	big := &api.AttestRequest{Csr: newCSR(t, h.key), Evidence: &api.AttestRequest_X509Pop{X509Pop: &api.X509PoP{Chain: slices.Repeat([][]byte{authority.Cert.Raw}, 5)}}}
	wantCode(t, newHost(r).send(h.connect(), big), codes.PermissionDenied, "5 certificates")
}

func TestAHostKeyThatJoinsAgainByOtherEvidenceLeavesNothingBehind(t *testing.T) {
	r, authority := newRacks(t)
	certificate, key := authority.Host("rack-1")
	h := r.join("front")
	before := server.Instances()
	for range 3 {
		wantCode(t, h.prove(certificate, key), codes.InvalidArgument, "has joined already")
	}
	if now := server.Instances(); now != before {
		t.Errorf("%d agents are held as served, %d before", now, before)
	}
}

func TestEvidenceOfANewerReleaseIsRefusedAsThat(t *testing.T) {
	r := newRig(t)
	r.apply(racks)
	newer := func(h *host) *api.AttestRequest {
		req := &api.AttestRequest{Csr: newCSR(t, h.key)}
		req.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("a quote")))
		return req
	}
	h := newHost(r)
	wantCode(t, h.send(h.connect(), newer(h)), codes.PermissionDenied, "does not know its method (field 99", "update the server, or join by join_token")
	joined := r.join("front") // by its host key
	if err := joined.send(joined.connect(), newer(joined)); err != nil {
		t.Error(err)
	}
}

func TestAServerThatTakesNoCertificatesSaysSo(t *testing.T) {
	r := newRig(t)
	r.apply(racks)
	wantCode(t, newHost(r).prove(parts.NewHostCA(t, "racks").Host("rack-1")), codes.PermissionDenied, "join.x509pop")
}
