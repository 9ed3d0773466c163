package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
)

func TestCertificatesRotateUnderLoadWithoutAFailedRequest(t *testing.T) {
	lifetime := meshtest.Soak(6*time.Second, 20*time.Second)
	duration := meshtest.Soak(40*time.Second, 2*time.Minute)
	const atLeast = 25
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: lifetime, Nodes: []string{"front", "back"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "back"),
			meshtest.VirtualNode("back", meshtest.Strict("test.example", "back")), meshtest.ServiceOfNode("back", "back"), fmt.Sprintf(tester, uid())),
	})
	w.AwaitRoute("front", "http://"+meshtest.HostOf("back")+"/")
	load := w.StartLoad("front", "http://"+meshtest.HostOf("back")+"/", 200)
	mine := identity(t, w)
	changes := map[string]int{}
	last := proxySerials(t, w)
	seen := seenSerials{t: t, address: net.JoinHostPort(w.Nodes["back"].Bind, strconv.Itoa(meshtest.AppPort)), serials: map[string]bool{}}
	for began := time.Now(); time.Since(began) < duration; time.Sleep(100 * time.Millisecond) {
		for id, serial := range proxySerials(t, w) {
			if serial != last[id] {
				changes[id]++
				last[id] = serial
			}
		}
		seen.look(certificate(t, mine))
	}
	result := load.Stop()
	t.Logf("%s at a lifetime of %s: %d requests, %d failed %v; changes of serial %v; %d serials seen at back's listener",
		duration, lifetime, result.Sent, result.Failed, result.Reasons, changes, len(seen.serials))
	if result.Failed != 0 {
		t.Errorf("%d of %d requests failed: %v", result.Failed, result.Sent, result.Reasons)
	}
	if want := int(duration.Seconds()*200) * 9 / 10; result.Sent < want {
		t.Errorf("only %d requests were sent, want at least %d", result.Sent, want)
	}
	for _, node := range []string{"front", "back"} {
		if n := changes["spiffe://test.example/test/"+node]; n < atLeast {
			t.Errorf("%s changed its certificate %d times, want at least %d", node, n, atLeast)
		}
	}
	if len(seen.serials) < atLeast {
		t.Errorf("back's listener showed %d certificates, want at least %d", len(seen.serials), atLeast)
	}
	recorded := map[string]bool{}
	for _, c := range certs(t, w, true) {
		if c.GetState() != api.Cert_RESERVED {
			recorded[c.GetSerial()] = true
		}
	}
	for serial := range seen.serials {
		if !recorded[serial] {
			t.Errorf("serial %s was shown to a client and is not in `signet certs --all`", serial)
		}
	}
}

// seenSerials collects the serials that a listener shows.
type seenSerials struct {
	t       *testing.T
	address string
	serials map[string]bool
}

// look makes one connection and notes the serial of the listener's certificate.
func (s *seenSerials) look(cert *tls.Certificate) {
	conn, err := tls.Dial("tcp", s.address, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}}) //nolint:gosec // looks at what is shown
	if err != nil {
		s.t.Errorf("look at %s: %v", s.address, err)
		return
	}
	defer func() { _ = conn.Close() }()
	s.serials[meshtest.SerialText(conn.ConnectionState().PeerCertificates[0].SerialNumber)] = true
}
