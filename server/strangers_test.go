package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/attestation/jointoken"
	"signet.example/server"
)

// rowsOf are the audit rows of an action.
func rowsOf(t *testing.T, action string) []string {
	t.Helper()
	rows, err := server.AuditTrail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rows {
		if r.Action == action {
			out = append(out, r.Actor+": "+r.Detail)
		}
	}
	return out
}

func TestRefusalsInTheAuditTrailAreBoundedAndCounted(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	secret := strings.Repeat("A", 43)
	const tries = 300
	conn := dial(t, r.addr.Agents, selfSigned(t), nil)
	csr := newCSR(t, newKey(t))
	for range tries {
		_, err := api.NewAgentAPIClient(conn).Attest(t.Context(), &api.AttestRequest{Evidence: &api.AttestRequest_JoinToken{JoinToken: secret}, Csr: csr})
		if err == nil {
			t.Fatal("joined with a token of nobody")
		}
	}
	if rows := rowsOf(t, "attest"); len(rows) != 3 || !strings.Contains(rows[0], "refused: join token is unknown") || !strings.Contains(rows[0], "host key ") {
		t.Errorf("%d rows: %q", len(rows), rows)
	}
	server.TellRefusals(t.Context())
	if rows := rowsOf(t, "attest"); len(rows) != 4 || !strings.Contains(rows[3], fmt.Sprintf("refused: %d more like these since", tries-3)) {
		t.Errorf("%q", rows)
	}
}

func TestARefusedRequestForACertificateLeavesAnAuditRow(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	if res, err := h.issue("secret", "job"); err != nil || res[0].GetError() == "" || res[1].GetError() != "" {
		t.Fatalf("%v, %v", res, err)
	}
	resp, err := h.api().Issue(t.Context(), &api.IssueRequest{Requests: []*api.SVIDRequest{{Entry: "job", Csr: []byte("no request")}}})
	if err != nil || resp.GetResults()[0].GetError() == "" {
		t.Fatalf("%v, %v", resp, err)
	}
	r.ban(h.id)
	_, err = h.issue("job")
	wantCode(t, err, codes.PermissionDenied)
	rows := rowsOf(t, "issue")
	for i, want := range []string{"agent " + h.id + `: refused: 1 of 2: entry "secret": not known to this agent`, "agent " + h.id + ": refused: 1 of 1: spiffe://test.example/batch/job: ", "refused: "} {
		if i >= len(rows) || !strings.Contains(rows[i], want) {
			t.Errorf("row %d of %q: want %q", i, rows, want)
		}
	}
}

// silent holds so many connections of an address until the test ends.
func silent(t *testing.T, addr string, from net.IP, n int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 2 * time.Second}
	for range n {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed
	}
}

func TestConnectionsOfOneAddressDoNotKeepAnAgentFromJoining(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	var held []net.Conn
	var mu sync.Mutex
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	var wg sync.WaitGroup
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}, Timeout: 2 * time.Second}
	for range 8 {
		wg.Go(func() {
			for range 500 {
				c, err := d.DialContext(t.Context(), "tcp", r.addr.Agents)
				if err != nil {
					continue
				}
				mu.Lock()
				held = append(held, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(held) < 1000 {
		t.Fatalf("%d connections", len(held))
	}
	silent(t, r.addr.Agents, net.IPv4(127, 0, 0, 1), 2*server.MostOfOneAddress)
	begun := time.Now()
	r.join("front")
	took := time.Since(begun)
	t.Logf("%d connections were tried; a join took %s", len(held), took)
	if took > 5*time.Second {
		t.Errorf("a join took %s", took)
	}
	if page := r.get("/metrics"); strings.Contains(page, "signet_server_connections_refused_total 0\n") {
		t.Error("none was refused")
	}
}

// held makes connections of an address, completes their handshakes as somebody whom
// nobody knows, says nothing, and holds them until the test ends.
func held(t *testing.T, addr string, from net.IP, n int) {
	t.Helper()
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // a stranger does not care
		Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h2"},
	}
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 2 * time.Second}, Config: cfg}
	for range n {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err == nil { // a server's first word comes when it has verified the client
			t.Cleanup(func() { _ = c.Close() }) // it may be closed
			_, err = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		}
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// Others of an address, as many as they like, come between the steps of a join: neither
// those that hold complete handshakes nor those that only connect end it.
func TestNeitherHeldHandshakesNorConnectionsKeepAnAgentOut(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	local := net.IPv4(127, 0, 0, 1)
	token := r.token("front")
	parsed, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	accepted := func() { held(t, r.addr.Agents, local, 1) } // what came before it
	others := func(shaken int) {
		held(t, r.addr.Agents, local, shaken)
		silent(t, r.addr.Agents, local, server.MostOfOneAddress*3/4)
		accepted()
	}
	held(t, r.addr.Agents, local, 2*server.MostStrangersOfOneAddress)
	host := newHost(r)
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the server is under test
		NextProtos: []string{"h2"},
	}
	// try makes a connection and a call on it, and lets others come between the steps. It tells whether these took
	// less than a server waits for whoever it has accepted, which a loaded host may not give them.
	try := func(cert tls.Certificate, shaken int, method func(api.AgentAPIClient) error) (inTime bool, _ error) {
		t.Helper()
		cfg.Certificates = []tls.Certificate{cert}
		tries := 0
		conn, err := grpc.NewClient("passthrough:///"+r.addr.Agents, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithPerRPCCredentials(anywhere{host.instance}),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				tries++
				raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					return nil, err
				}
				begun := time.Now()
				others(0)
				c := tls.Client(raw, cfg)
				if err := c.HandshakeContext(ctx); err != nil {
					return nil, errors.Join(err, raw.Close())
				}
				accepted()
				others(shaken)
				inTime = time.Since(begun) < 4*time.Second // a stranger has 5 after its handshake
				return c, nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }() // nothing was written
		err = method(api.NewAgentAPIClient(conn))
		if err == nil && tries != 1 {
			err = fmt.Errorf("at try %d", tries)
		}
		return inTime, err
	}
	call := func(cert tls.Certificate, shaken int, method func(api.AgentAPIClient) error) {
		t.Helper()
		inTime, err := try(cert, shaken, method)
		for again := 0; err != nil && !inTime && again < 5; again++ {
			inTime, err = try(cert, shaken, method)
		}
		if err != nil {
			t.Error(err)
		}
	}
	call(host.hostKey, server.MostStrangersOfOneAddress/4, func(a api.AgentAPIClient) error {
		resp, err := a.Attest(t.Context(), &api.AttestRequest{Evidence: &api.AttestRequest_JoinToken{JoinToken: parsed.SecretText()}, Csr: newCSR(t, host.key)})
		host.svid = tls.Certificate{Certificate: resp.GetChain(), PrivateKey: host.key}
		return err
	})
	// It is known by now, by its key and by its certificate: no number of strangers counts.
	call(host.hostKey, 2*server.MostStrangersOfOneAddress, func(a api.AgentAPIClient) error {
		_, err := a.Attest(t.Context(), &api.AttestRequest{Csr: newCSR(t, host.key)})
		return err
	})
	call(host.svid, 2*server.MostStrangersOfOneAddress, func(a api.AgentAPIClient) error {
		_, err := a.Issue(t.Context(), &api.IssueRequest{})
		return err
	})
}

// anywhere sends a run on any connection: the test has made TLS itself.
type anywhere struct{ runOf }

func (anywhere) RequireTransportSecurity() bool { return false }

// TestStrangersNeitherFillTheDiskNorKeepAgentsOut tries the port of the agents in
// every way that is refused, from many addresses at once.
func TestStrangersNeitherFillTheDiskNorKeepAgentsOut(t *testing.T) {
	length, callers := 3*time.Second, 1
	if os.Getenv("SOAK") == "1" {
		length, callers = time.Minute, 8 // of each kind: one call is answered in a millisecond
	}
	log := &safeBuffer{}
	r := newRigLogged(t, log)
	r.apply(registry)
	h := r.join("front")
	before := sizeOf(t, r.cfg.DataDir)
	lines := log.len()
	stranger := selfSigned(t)
	csr := newCSR(t, newKey(t))
	const each = 2_500 // attempts of a kind in a second, however long one takes
	start := time.Now()
	end := start.Add(length)
	var due, tries [4]atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers * len(tries) {
		k := caller % len(tries)
		wg.Go(func() {
			for n := caller / len(tries); time.Now().Before(end); n++ {
				cert := stranger
				if k == 3 {
					cert = tls.Certificate{}
				}
				conn := dialFrom(t, r.addr.Agents, cert, net.IPv4(127, 0, byte(1+k), byte(1+n%40))) //nolint:gosec // both are small
				for range 500 {
					time.Sleep(time.Until(start.Add(time.Duration(due[k].Add(1)) * time.Second / each)))
					if time.Now().After(end) {
						break
					}
					var err error
					switch k {
					case 0:
						_, err = api.NewAgentAPIClient(conn).Attest(t.Context(), &api.AttestRequest{Evidence: &api.AttestRequest_JoinToken{JoinToken: strings.Repeat("B", 43)}, Csr: csr, Hostname: "a\u202eb"})
					case 1:
						_, err = api.NewAgentAPIClient(conn).Attest(t.Context(), &api.AttestRequest{Csr: csr})
					default:
						_, err = api.NewAgentAPIClient(conn).Issue(t.Context(), &api.IssueRequest{Requests: []*api.SVIDRequest{{Entry: "job", Csr: csr}}})
					}
					if err == nil {
						t.Error("a stranger was served")
						return
					}
					tries[k].Add(1)
				}
				_ = conn.Close()
			}
		})
	}
	worst := time.Duration(0)
	for time.Now().Before(end) {
		begun := time.Now()
		if res, err := h.issue("job"); err != nil || res[0].GetError() != "" {
			t.Errorf("a joined agent: %v, %v", res, err)
		}
		worst = max(worst, time.Since(begun))
		time.Sleep(50 * time.Millisecond)
	}
	wg.Wait()
	server.TellRefusals(t.Context())
	grown := sizeOf(t, r.cfg.DataDir) - before
	perSecond := func(k int) float64 { return float64(tries[k].Load()) / length.Seconds() }
	t.Logf("attempts in a second (goal in soak: 2,000 of each of the first three): bad tokens %.0f, keys of nobody %.0f, no agents %.0f, no certificates %.0f; in %s: log %d bytes, store %d bytes, slowest certificate %s",
		perSecond(0), perSecond(1), perSecond(2), perSecond(3), length, log.len()-lines, grown, worst)
	if log.len()-lines > 1<<20 || grown > 1<<20 {
		t.Errorf("the log grew by %d bytes, the store by %d", log.len()-lines, grown)
	}
	if rows := rowsOf(t, "attest"); len(rows) > 40 {
		t.Errorf("%d audit rows", len(rows))
	}
	if bytes.ContainsRune(log.bytes(), '\u202e') {
		t.Error("a bidirectional character is in the log")
	}
}

// sizeOf is what the store's files take when what is in its write-ahead log is in
// its place: the log is used again from 4 MiB on, whoever writes.
func sizeOf(t *testing.T, dir string) int64 {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "store.db")+"?_pragma=busy_timeout(5000)")
	if err == nil {
		_, err = db.ExecContext(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "store.db*"))
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// floodUntilDry attests with this until the bucket that it takes from is empty, and
// goes on until the test ends.
func floodUntilDry(t *testing.T, conn *grpc.ClientConn, req *api.AttestRequest) {
	t.Helper()
	client := api.NewAgentAPIClient(conn)
	try := func(ctx context.Context) codes.Code {
		_, err := client.Attest(ctx, req)
		return status.Code(err)
	}
	eventually(t, "nothing is left of the address's bucket", func() bool {
		for range 20 {
			if try(t.Context()) == codes.ResourceExhausted {
				return true
			}
		}
		return false
	})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			try(ctx)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
}

func TestAnAgentJoinsAndAttestsAgainWhileStrangersFloodFromItsAddress(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	csr := newCSR(t, newKey(t))
	for _, req := range []*api.AttestRequest{
		{Evidence: &api.AttestRequest_JoinToken{JoinToken: strings.Repeat("B", 43)}, Csr: csr}, // a token of nobody
		{Csr: csr}, // a key of nobody
	} {
		floodUntilDry(t, dial(t, r.addr.Agents, selfSigned(t), nil), req)
		begun := time.Now()
		if err := h.attest(""); err != nil {
			t.Errorf("an agent that joined: %v", err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		r.join("front") // by a good token, which nobody else has
	}
}

// A copy of its folder has the agent's key: what it takes of the key's attestations, the
// agent does not miss where it is known to be.
func TestACopyOfAnAgentsFolderElsewhereDoesNotSlowItsRestart(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	h.stay()
	floodUntilDry(t, dialFrom(t, r.addr.Agents, h.hostKey, net.IPv4(127, 0, 0, 9)), &api.AttestRequest{Csr: newCSR(t, newKey(t))})
	conn := dial(t, r.addr.Agents, h.hostKey, nil, grpc.WithPerRPCCredentials(h.instance))
	for range 5 {
		if _, err := api.NewAgentAPIClient(conn).Attest(t.Context(), &api.AttestRequest{Csr: newCSR(t, h.key)}); err != nil {
			t.Errorf("the agent where it was: %v", err)
		}
	}
	// However many addresses the key is shown from, they are no more than one: a third has
	// what has come back meanwhile, and not as much as a first would have.
	other := api.NewAgentAPIClient(dialFrom(t, r.addr.Agents, h.hostKey, net.IPv4(127, 0, 0, 10)))
	for n := 1; ; n++ {
		_, err := other.Attest(t.Context(), &api.AttestRequest{Csr: newCSR(t, h.key)})
		if status.Code(err) == codes.ResourceExhausted {
			break
		}
		if n == server.AttestBurst {
			t.Fatalf("from a third address, %d times: %v", n, err)
		}
	}
}

func TestOneHostKeyGetsFewAgentCertificatesInASecond(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h, other := r.join("front"), r.join("front")
	client := api.NewAgentAPIClient(dial(t, r.addr.Agents, h.hostKey, nil))
	csr := newCSR(t, newKey(t))
	signed, begun := 0, time.Now()
	var limited error
	const tries, enough = 200, 5000
	for n := 0; n < tries || limited == nil; n++ { // until one that is told when to come took nothing after
		if n == enough {
			t.Fatalf("of %d attestations of one key %d were let in, the last one too", n, signed)
		}
		_, limited = client.Attest(t.Context(), &api.AttestRequest{Csr: csr})
		if limited == nil {
			signed++
		} else if status.Code(limited) != codes.ResourceExhausted {
			t.Fatal(limited)
		}
	}
	// The agent of the key is told when it will be let in, and then it is.
	told := status.Convert(limited).Details()
	if len(told) != 1 {
		t.Fatalf("%v has %v", limited, told)
	}
	info, ok := told[0].(*errdetails.RetryInfo)
	if after := info.GetRetryDelay().AsDuration(); !ok || after <= 0 || after > time.Second/2 {
		t.Fatalf("told to come after %s", after)
	}
	time.Sleep(info.GetRetryDelay().AsDuration())
	if _, err := client.Attest(t.Context(), &api.AttestRequest{Csr: csr}); err != nil {
		t.Errorf("it came when it was told to: %v", err)
	}
	if most := 25 + int(2*time.Since(begun).Seconds()); signed > most || signed == 0 {
		t.Errorf("%d certificates of one key in %s", signed, time.Since(begun))
	}
	if err := other.attest(""); err != nil {
		t.Errorf("another agent of that address: %v", err)
	}
}
