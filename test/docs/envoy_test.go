package docs

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// The bootstrap of the page is run with an Envoy, as it stands there
// (TestAnEnvoyThatTheAgentDidNotStartIsAProxyByItsBinding).
func TestTheBootstrapOfThePageIsWhatItsCommandPrints(t *testing.T) {
	page := read(t, "docs", "ENVOY.md")
	command := regexp.MustCompile(`(?m)^signet (envoy bootstrap mesh/.*) > bootstrap\.yaml$`).FindStringSubmatch(page)
	blocks := block(page, "yaml")
	if command == nil || len(blocks) != 3 {
		t.Fatalf("the page has the command %q and %d blocks", command, len(blocks))
	}
	out, err := exec.CommandContext(t.Context(), parts.Signet(t), strings.Fields(command[1])...).CombinedOutput()
	if err != nil || string(out) != blocks[1] {
		t.Errorf("%v: it prints\n%s", err, out)
	}
}
