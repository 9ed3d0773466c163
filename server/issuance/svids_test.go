package issuance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/server/fault"
)

// answered is an issuer that notes what it is asked, and whose answers a test changes.
type answered struct {
	asked  []*api.SignItem
	answer func(*api.SignItem) *api.SignResult
	err    error
}

func (a *answered) Issue(_ context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	if a.asked = append(a.asked, items...); a.err != nil {
		return nil, a.err
	}
	var out []*api.SignResult
	for _, item := range items {
		r := &api.SignResult{Chain: [][]byte{[]byte(item.GetSpiffeId())}}
		if a.answer != nil {
			r = a.answer(item)
		}
		out = append(out, r)
	}
	return out, nil
}

// purse is what there is to take.
type purse int

func (p *purse) Take(_ string, n int) error {
	if n > int(*p) {
		return fault.Later(time.Second)
	}
	*p -= purse(n)
	return nil
}

// desk is SVIDs with what it counts.
type desk struct {
	*SVIDs

	issuer  *answered
	left    *purse
	counted map[string]int
}

func newDesk() *desk {
	d := &desk{issuer: &answered{}, left: new(purse), counted: map[string]int{}}
	*d.left = 1000
	d.SVIDs = New(Config{
		Batches: inTurn{d.issuer}, One: d.issuer, Limits: d.left, Agent: 2 * time.Hour, Workload: time.Hour,
		Metrics: Metrics{
			Issued: func(p api.Profile, outcome string) prometheus.Counter {
				d.counted[p.String()+" "+outcome]++
				return prometheus.NewCounter(prometheus.CounterOpts{})
			},
			Limited: prometheus.NewCounter(prometheus.CounterOpts{}),
		},
	})
	return d
}

// web is an agent that may have two identities.
func web() Requester {
	entries := map[string]identity.Entry{
		"short": {ID: spiffeid.RequireFromString("spiffe://mesh.example/short"), TTL: time.Minute},
		"usual": {ID: spiffeid.RequireFromString("spiffe://mesh.example/usual")},
	}
	return Requester{ID: spiffeid.RequireFromString("spiffe://mesh.example/signet/agent/web"), Agent: "web", Entry: func(name string) (identity.Entry, bool) {
		e, ok := entries[name]
		return e, ok
	}}
}

func asks(names ...string) *api.IssueRequest {
	req := &api.IssueRequest{}
	for _, name := range names {
		req.Requests = append(req.Requests, &api.SVIDRequest{Entry: name, Csr: []byte("csr of " + name)})
	}
	return req
}

func TestAnAgentIsIssuedWhatItsEntriesSayAndNothingElse(t *testing.T) {
	d := newDesk()
	req := asks("usual", "another's", "short", "", "usual", "no such")
	req.Requests[4].Csr = make([]byte, maxCSR+1)
	resp, refused, err := d.Batch(t.Context(), web(), req)
	if err != nil {
		t.Fatal(err)
	}
	var asked, got []string
	for _, item := range d.issuer.asked {
		asked = append(asked, fmt.Sprintf("%s %s for %s, asked by %s with %s", item.GetProfile(), item.GetSpiffeId(), item.GetLifetime().AsDuration(), item.GetRequester(), item.GetCsr()))
	}
	want := []string{
		"PROFILE_WORKLOAD spiffe://mesh.example/usual for 1h0m0s, asked by spiffe://mesh.example/signet/agent/web with csr of usual",
		"PROFILE_WORKLOAD spiffe://mesh.example/short for 1m0s, asked by spiffe://mesh.example/signet/agent/web with csr of short",
		"PROFILE_AGENT spiffe://mesh.example/signet/agent/web for 2h0m0s, asked by spiffe://mesh.example/signet/agent/web with csr of ",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("the signer is asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	for _, r := range resp.GetResults() {
		chain := ""
		if len(r.GetChain()) > 0 {
			chain = string(r.GetChain()[0])
		}
		got = append(got, chain+r.GetError())
	}
	if want := []string{
		"spiffe://mesh.example/usual", fault.Denied.Error(), "spiffe://mesh.example/short", "spiffe://mesh.example/signet/agent/web",
		"certificate request of 8193 bytes", fault.Denied.Error(), // one that is another's looks like one that is not there
	}; !slices.Equal(got, want) {
		t.Errorf("it is given %q, want %q", got, want)
	}
	if !strings.HasPrefix(refused, `3 of 6: entry "another's": `) {
		t.Errorf("refused: %s", refused)
	}
	if d.counted["PROFILE_WORKLOAD refused"] != 3 || d.counted["PROFILE_WORKLOAD ok"] != 2 || d.counted["PROFILE_AGENT ok"] != 1 {
		t.Errorf("counted: %v", d.counted)
	}
}

func TestABatchCostsWhatIsInItBeforeAnythingIsSigned(t *testing.T) {
	d := newDesk()
	*d.left = 3
	_, _, err := d.Batch(t.Context(), web(), &api.IssueRequest{Requests: make([]*api.SVIDRequest, maxBatch+1)})
	if !errors.Is(err, fault.Invalid) || *d.left != 3 {
		t.Errorf("more than a batch may have: %v, %d left", err, *d.left)
	}
	for _, want := range []error{nil, fault.Limit} {
		if _, _, err := d.Batch(t.Context(), web(), asks("usual", "short")); !errors.Is(err, want) {
			t.Errorf("err = %v, want %v", err, want)
		}
	}
	if len(d.issuer.asked) != 2 {
		t.Errorf("the signer was asked for %d", len(d.issuer.asked))
	}
}

func TestAnAgentThatAsksForTooMuchIsToldWhenThereIsEnough(t *testing.T) {
	d := newDesk()
	*d.left = 1
	_, _, err := d.Batch(t.Context(), web(), asks("usual", "short"))
	details := status.Convert(fault.ToAgent(err)).Details()
	if len(details) != 1 {
		t.Fatalf("err = %v, which says %v", err, details)
	}
	if info, ok := details[0].(*errdetails.RetryInfo); !ok || info.GetRetryDelay().AsDuration() != time.Second {
		t.Errorf("it says %v", details)
	}
}

func TestWhatTheSignerRefusesAndWhatItFailsAtAreToldApart(t *testing.T) {
	d := newDesk()
	d.issuer.answer = func(item *api.SignItem) *api.SignResult {
		return &api.SignResult{Error: "its key is weak", Invalid: strings.HasSuffix(item.GetSpiffeId(), "short")}
	}
	resp, refused, err := d.Batch(t.Context(), web(), asks("usual", "short"))
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetResults()[0].GetError(); got != "not signed: its key is weak" {
		t.Errorf("a failure of the signer's: %q", got)
	}
	if got := resp.GetResults()[1].GetError(); got != "its key is weak" || refused != "1 of 2: spiffe://mesh.example/short: its key is weak" {
		t.Errorf("a fault of the request's own: %q, refused %q", got, refused)
	}
	d.issuer.err = errors.New("no connection")
	if _, refused, err = d.Batch(t.Context(), web(), asks("usual", "no such")); !errors.Is(err, fault.Unavailable) || refused == "" {
		t.Errorf("the signer is not there: %v, refused %q", err, refused)
	}
	if _, err := d.Agent(t.Context(), web().ID, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("one that joins: %v", err)
	}
	d.issuer.err, d.issuer.answer = nil, func(*api.SignItem) *api.SignResult { return &api.SignResult{} }
	if _, err := d.Agent(t.Context(), web().ID, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("neither a chain nor an error: %v", err)
	}
	if d.counted["PROFILE_AGENT failed"] != 2 || d.counted["PROFILE_WORKLOAD failed"] != 2 || d.counted["PROFILE_WORKLOAD refused"] != 2 {
		t.Errorf("counted: %v", d.counted)
	}
}

func TestARequestThatNobodySignedForItsKeyHasNoChance(t *testing.T) {
	d := newDesk()
	good := requestOf(t, newKey(t))
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		csr  []byte
		good bool
	}{
		"good": {good, true}, "on P-384": {requestOf(t, p384), true},
		"forged": {forged, false}, "empty": {nil, false}, "text": {[]byte("csr"), false}, "huge": {make([]byte, maxCSR+1), false},
	} {
		if err := d.CheckCSR(c.csr); (err == nil) != c.good || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is dear to verify is refused by its kind alone, and its signature is not looked at.
func TestAKeyThatNoAgentMakesIsRefusedBeforeItsSignatureIsVerified(t *testing.T) {
	d := newDesk()
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, csr := range map[string][]byte{"RSA of 32,000 bits": hugeRSA(t), "P-521": requestOf(t, p521)} {
		if err := d.CheckCSR(csr); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "an agent's key is ECDSA") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func requestOf(t *testing.T, key any) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// hugeRSA is a request with a key of 32,000 bits, which nobody has, and of no more bytes than
// are taken.
func hugeRSA(t *testing.T) []byte {
	t.Helper()
	n := new(big.Int).SetBit(big.NewInt(1), 31_999, 1)
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	info, err := asn1.Marshal(struct {
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0,set"`
	}{Subject: asn1.RawValue{FullBytes: []byte{0x30, 0}}, Key: asn1.RawValue{FullBytes: spki}, Attributes: []asn1.RawValue{}})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := asn1.Marshal(struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: info},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: make([]byte, 4000), BitLength: 32_000},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificateRequest(csr); err != nil || len(csr) > maxCSR {
		t.Fatalf("it is none that would be verified: %d bytes, %v", len(csr), err)
	}
	return csr
}
