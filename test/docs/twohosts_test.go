package docs

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// TestTheCommandsOfThePageOfTwoHostsDoWhatItSays runs the page in two folders, what is to be
// run on b in the network namespace of another host.
func TestTheCommandsOfThePageOfTwoHostsDoWhatItSays(t *testing.T) {
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	for _, tool := range []string{"bash", "git", "curl", "python3"} {
		parts.Program(t, tool)
	}
	if !parts.Hosts(t, t.Name()) {
		return
	}
	const carry = "scp -q token-b $B:mesh/token"
	page := read(t, "docs", "TWO-HOSTS.md")
	if !strings.Contains(page, carry) || !strings.Contains(page, "A="+parts.ThisHost+" B="+parts.AnotherHost) {
		t.Fatal("the page carries its token in another way, or has other addresses than the two hosts here")
	}
	steps := tutorial(strings.ReplaceAll(page, carry, "cp token-b ../b/token"))
	var script strings.Builder
	script.WriteString("mkdir a b; cd a\n")
	for i, s := range steps {
		fmt.Fprintf(&script, "\necho '@@@ %d'\n", i)
		if strings.HasPrefix(s.script, "# on b\n") {
			s.script = fmt.Sprintf("(cd ../b; %s bash -euo pipefail <<'END OF B'\n%sEND OF B\n)\n", parts.OnAnotherHost(), s.script)
		}
		script.WriteString(s.script)
	}
	checkPrinted(t, steps, runScript(t, script.String(), filepath.Dir(signet), filepath.Dir(envoy)))
}
