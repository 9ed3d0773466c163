package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
	"signet.example/identity"
)

func TestIssueAnswersWithAVerifiableChainAndTwoRecords(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	r := request(t, "/shop/web")
	r.Lifetime = 10 * time.Minute
	chain := w.issue(t, r)
	set, err := identity.ParseRootSet(w.authority.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if id, err := identity.VerifyChain(chain, td, set.Pool(), noon, usage); err != nil || id != r.ID {
			t.Errorf("%v, %v", id, err)
		}
	}
	leaf := chain[0]
	if !leaf.NotBefore.Equal(noon.Add(-time.Minute)) || !leaf.NotAfter.Equal(noon.Add(10*time.Minute)) {
		t.Errorf("valid %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	records := w.records(t)
	var kinds []string
	for _, r := range records {
		kinds = append(kinds, string(r.Kind))
	}
	if got := strings.Join(kinds, " "); got != "authority authority reserved issued" {
		t.Fatalf("records %s", got)
	}
	sum, tbs := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawTBSCertificate)
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for _, r := range records[2:] {
		if r.Serial != ca.SerialText(leaf.SerialNumber) || r.ID != "spiffe://mesh.example/shop/web" || r.Profile != "workload" ||
			r.Requester == "" || !bytes.Equal(r.SPKI, spki[:]) || !r.NotAfter.Equal(leaf.NotAfter) || r.Issuer != ca.SerialText(chain[1].SerialNumber) {
			t.Errorf("record %+v", r)
		}
	}
	if !bytes.Equal(records[2].TBS, tbs[:]) || !bytes.Equal(records[3].Certificate, sum[:]) {
		t.Error("the records do not name what was signed")
	}
}

func TestIssueTakesOnlyTheKeyFromACSR(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	evil, _ := url.Parse("spiffe://mesh.example/shop/admin")
	key := newKey(t)
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"bank.example"}, URIs: []*url.URL{evil},
		EmailAddresses: []string{"a@b.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "/shop/web")
	r.CSR = der
	leaf := w.issue(t, r)[0]
	if leaf.IsCA || len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses) != 0 || len(leaf.URIs) != 1 ||
		leaf.URIs[0].String() != r.ID.String() || len(leaf.Subject.Names) != 0 || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("leaf took more than the key: %+v", leaf)
	}
}

func TestIssueRefusesWhatDoesNotFitTheProfile(t *testing.T) {
	w := newWorld(t, ca.Profiles{Max: time.Hour})
	other := spiffeid.RequireTrustDomainFromString("sub.mesh.example")
	for name, change := range map[string]func(*ca.Request){
		"another trust domain":     func(r *ca.Request) { r.ID = spiffeid.RequireFromPath(other, "/shop/web") },
		"no identity":              func(r *ca.Request) { r.ID = spiffeid.ID{} },
		"no path":                  func(r *ca.Request) { r.ID = td.ID() },
		"a workload under /signet": func(r *ca.Request) { r.ID = spiffeid.RequireFromPath(td, "/signet/agent/x") },
		"a workload named /signet": func(r *ca.Request) { r.ID = spiffeid.RequireFromPath(td, "/signet") },
		"an agent outside":         func(r *ca.Request) { r.Profile = ca.ProfileAgent },
		"an agent that is a server": func(r *ca.Request) {
			r.Profile, r.ID = ca.ProfileAgent, spiffeid.RequireFromPath(td, "/signet/server/x")
		},
		"a server that is an agent": func(r *ca.Request) {
			r.Profile, r.ID = ca.ProfileServer, spiffeid.RequireFromPath(td, "/signet/agent/x")
		},
		"an unknown profile":         func(r *ca.Request) { r.Profile = "root" },
		"an ID of more than 2 KiB":   func(r *ca.Request) { r.ID = spiffeid.RequireFromPath(td, "/"+strings.Repeat("a", 2048)) },
		"a lifetime above the most":  func(r *ca.Request) { r.Lifetime = time.Hour + time.Second },
		"a lifetime below a second":  func(r *ca.Request) { r.Lifetime = time.Millisecond },
		"a negative lifetime":        func(r *ca.Request) { r.Lifetime = -time.Hour },
		"nobody who asks":            func(r *ca.Request) { r.Requester = "" },
		"a requester with a NUL":     func(r *ca.Request) { r.Requester = "a\x00b" },
		"a requester not in UTF-8":   func(r *ca.Request) { r.Requester = "\xff" },
		"no CSR":                     func(r *ca.Request) { r.CSR = nil },
		"a CSR above 16 KiB":         func(r *ca.Request) { r.CSR = append(r.CSR, make([]byte, 16<<10)...) },
		"a CSR and something behind": func(r *ca.Request) { r.CSR = append(r.CSR, 0) },
		"a CSR of a stolen key": func(r *ca.Request) {
			r.CSR = bytes.Clone(r.CSR)
			r.CSR[len(r.CSR)-1] ^= 1
		},
	} {
		r := request(t, "/shop/web")
		change(&r)
		if result := w.issuer.Issue(t.Context(), []ca.Request{r})[0]; !errors.Is(result.Err, ca.ErrInvalid) || result.Chain != nil {
			t.Errorf("%s: chain %d, err %v", name, len(result.Chain), result.Err)
		}
	}
	if n := w.log.Size(); n != 2 {
		t.Errorf("%d records, want the two authorities only", n)
	}
}

func TestIssueAcceptsEachProfileAndKind(t *testing.T) {
	w := newWorld(t, ca.Profiles{AllowRSA: true})
	for n, key := range []crypto.Signer{newKey(t), curveKey(t, elliptic.P384()), rsaKey(t, 2048)} {
		w.issue(t, requestFor(t, fmt.Sprintf("/shop/k%d", n), key))
	}
	for profile, path := range map[string]string{ca.ProfileAgent: "/signet/agent/a1", ca.ProfileServer: "/signet/server/s1"} {
		r := request(t, path)
		r.Profile = profile
		w.issue(t, r)
	}
	longest := request(t, "/"+strings.Repeat("a", 2048-len("spiffe://mesh.example/")))
	w.issue(t, longest)
}

func TestIssueRefusesWeakKeys(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	for name, key := range map[string]crypto.Signer{
		"P-224": curveKey(t, elliptic.P224()), "P-521": curveKey(t, elliptic.P521()), "RSA without the option": rsaKey(t, 2048), "Ed25519": edKey(t),
	} {
		r := requestFor(t, "/shop/web", key)
		if err := w.issuer.Issue(t.Context(), []ca.Request{r})[0].Err; !errors.Is(err, ca.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ca.ForTestParse(csr(t, rsaKey(t, 1024)), true); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("RSA 1024: %v", err)
	}
}

func TestOneKeyIsOneIdentity(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	key := newKey(t)
	w.issue(t, requestFor(t, "/shop/web", key))
	w.issue(t, requestFor(t, "/shop/web", key)) // renewal with the same key is no reuse
	if err := w.issuer.Issue(t.Context(), []ca.Request{requestFor(t, "/shop/db", key)})[0].Err; !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("another identity: %v", err)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	i := ca.NewIssuer(w.authority, openLog(t, w.path), ca.Profiles{}) // the index comes from the log
	if err := i.Issue(t.Context(), []ca.Request{requestFor(t, "/shop/db", key)})[0].Err; !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("another identity after reopening: %v", err)
	}
}

func TestOneKeyIsOneIdentityWithinABatchAndUnderConcurrency(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	key := newKey(t)
	batch := []ca.Request{requestFor(t, "/shop/a", key), requestFor(t, "/shop/b", key), request(t, "/shop/c")}
	results := w.issuer.Issue(t.Context(), batch)
	if (results[0].Err == nil) == (results[1].Err == nil) || results[2].Err != nil {
		t.Errorf("batch: %v, %v, %v", results[0].Err, results[1].Err, results[2].Err)
	}
	key = newKey(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for n := range 16 {
		r := requestFor(t, fmt.Sprintf("/race/%d", n), key)
		wg.Go(func() {
			if w.issuer.Issue(t.Context(), []ca.Request{r})[0].Err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d identities have one key", n)
	}
}

func TestAnAuthoritysKeyIsNotCertified(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	r := requestFor(t, "/shop/web", w.authority.ForTestKey())
	if err := w.issuer.Issue(t.Context(), []ca.Request{r})[0].Err; !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestBatchSharesTwoWritesAndFailsOneByOne(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	var batch []ca.Request
	for n := range 40 {
		batch = append(batch, request(t, fmt.Sprintf("/shop/w%d", n)))
	}
	batch[7].CSR = []byte("no CSR")
	for n, r := range w.issuer.Issue(t.Context(), batch) {
		if (r.Err != nil) != (n == 7) {
			t.Errorf("request %d: %v", n, r.Err)
		}
		if r.Err == nil {
			if c, err := x509.ParseCertificate(r.Chain[0]); err != nil || c.URIs[0].String() != batch[n].ID.String() {
				t.Errorf("request %d was answered with another's certificate", n)
			}
		}
	}
	for n, r := range w.issuer.Issue(t.Context(), make([]ca.Request, ca.MaxBatch+1)) {
		if !errors.Is(r.Err, ca.ErrInvalid) {
			t.Fatalf("request %d of too many: %v", n, r.Err)
		}
	}
}

func TestSerialsArePositiveUniqueAndNameTheirLog(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	seen := map[string]bool{}
	var prefix []byte
	for range 3 {
		var batch []ca.Request
		for n := range 20 {
			batch = append(batch, request(t, fmt.Sprintf("/shop/w%d", n)))
		}
		for _, r := range w.issuer.Issue(t.Context(), batch) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			c, err := x509.ParseCertificate(r.Chain[0])
			if err != nil {
				t.Fatal(err)
			}
			octets := c.SerialNumber.Bytes()
			if prefix == nil {
				prefix = octets[:2]
			}
			if c.SerialNumber.Cmp(big.NewInt(0)) <= 0 || len(octets) != 18 || octets[0] > 0x7f || !bytes.Equal(octets[:2], prefix) || seen[c.SerialNumber.String()] {
				t.Errorf("serial %x", octets)
			}
			seen[c.SerialNumber.String()] = true
		}
	}
}

func TestShortLifetimesAreBackdatedByTheirOwnLengthOnly(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	r := request(t, "/shop/web")
	r.Lifetime = 6 * time.Second
	w.clock.Set(noon.Add(700 * time.Millisecond))
	leaf := w.issue(t, r)[0]
	if !leaf.NotBefore.Equal(noon.Add(-6*time.Second)) || !leaf.NotAfter.Equal(noon.Add(6*time.Second)) {
		t.Errorf("valid %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
}

func TestAClockBeforeTheRecordsStopsIssuance(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	w.clock.Set(noon.Add(time.Hour))
	w.issue(t, request(t, "/shop/web"))
	w.clock.Set(noon.Add(time.Hour - 59*time.Second))
	w.issue(t, request(t, "/shop/web"))
	w.clock.Set(noon.Add(time.Hour - 61*time.Second))
	if err := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; !errors.Is(err, ca.ErrClock) || errors.Is(err, ca.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestAnAuthorityBelowSixTimesTheLeafIsRefused(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	for _, p := range []ca.Profiles{
		{Max: 7*24*time.Hour/6 + time.Second},
		{Default: 48 * time.Hour},
		{Default: 2 * time.Hour, Max: time.Hour},
		{Min: time.Hour, Default: time.Minute},
		{Min: time.Millisecond},
	} {
		if err := p.Check(w.authority); !errors.Is(err, ca.ErrConfig) {
			t.Errorf("%+v: %v", p, err)
		}
		i := ca.NewIssuer(w.authority, w.log, p)
		if err := i.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; !errors.Is(err, ca.ErrConfig) {
			t.Errorf("%+v: issue: %v", p, err)
		}
	}
	if err := (ca.Profiles{Max: 7 * 24 * time.Hour / 6}).Check(w.authority); err != nil {
		t.Error(err)
	}
}

func TestALogOfAnotherTrustDomainIsRefused(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	content, err := ca.ForTestNewLog(spiffeid.RequireTrustDomainFromString("other.example"), noon)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ca.ForTestStartLog(&memDisk{content: content}, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := ca.NewIssuer(w.authority, l, ca.Profiles{}).Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; !errors.Is(err, ca.ErrConfig) {
		t.Errorf("err = %v", err)
	}
}

func TestAReservationSignsOnceAndOnlyWhatWasLinted(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	first, second, other := w.issuer.ForTestSignTwice(ca.Record{}, request(t, "/shop/web"), noon)
	if first != nil || second == nil || other == nil {
		t.Errorf("first %v, second %v, other bytes %v", first, second, other)
	}
}

func TestACancelledCallerGetsNoCertificate(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 20 {
		if r := w.issuer.Issue(ctx, []ca.Request{request(t, fmt.Sprintf("/shop/w%d", n))})[0]; r.Err == nil {
			// The select may take the queue and be done first: then there is a record.
			t.Logf("answered all the same")
		}
	}
	w.issue(t, request(t, "/shop/web"))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	open := map[string]int{}
	l := openLog(t, w.path)
	records, err := l.Read(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch r.Kind {
		case ca.KindReserved:
			open[r.Serial]++
		case ca.KindIssued, ca.KindAbandoned:
			open[r.Serial]--
		}
	}
	for serial, n := range open {
		if n != 0 {
			t.Errorf("serial %s has no end", serial)
		}
	}
}
