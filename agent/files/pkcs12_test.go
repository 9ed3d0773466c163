package files

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"signet.example/identity"
	"signet.example/test/parts"
)

// TestOpensslReadsThePKCS12Files: another reader than the library that wrote them. (Java's is not
// tried.)
func TestOpensslReadsThePKCS12Files(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		parts.Missing(t, "openssl")
	}
	r := newRig(t)
	e := entry("db", "java", self, 1)
	e.Files.Layouts = []string{identity.LayoutPKCS12}
	r.told(e)
	ask := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), openssl, append([]string{"pkcs12", "-passin", "pass:changeit", "-noenc"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for range 2 {
		s := r.issue("db")
		r.once()
		if p := r.Problems(); len(p) > 0 {
			t.Fatal(p)
		}
		chain := ask("-in", r.path("java", keystoreName))
		if strings.Count(chain, "BEGIN CERTIFICATE") != 2 || strings.Count(chain, "BEGIN PRIVATE KEY") != 1 || !strings.Contains(chain, firstLine(certificatesPEM([][]byte{s.Leaf.Raw}))) {
			t.Errorf("%s", chain)
		}
		trust := ask("-in", r.path("java", trustName), "-nokeys")
		if strings.Count(trust, "BEGIN CERTIFICATE") != 1 || !strings.Contains(trust, firstLine(certificatesPEM([][]byte{r.root.Cert.Raw}))) {
			t.Errorf("%s", trust)
		}
	}
	e.Files.Layouts = nil
	r.told(e)
	r.once()
	if _, err := os.Lstat(r.path("java", keystoreName)); err == nil {
		t.Error("a layout that nobody asks for any more is there still")
	}
}

// firstLine is the longest text of a certificate that no other one has.
func firstLine(pem []byte) string { return strings.Split(string(pem), "\n")[4] }
