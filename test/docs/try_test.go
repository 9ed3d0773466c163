package docs

import (
	"path/filepath"
	"testing"

	"signet.example/test/parts"
)

// TestTheCommandsOfThePageOfTryingDoWhatItSays runs the page from App Mesh's specs to a policy
// that denies.
func TestTheCommandsOfThePageOfTryingDoWhatItSays(t *testing.T) {
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	for _, tool := range []string{"bash", "git", "curl", "python3"} {
		parts.Program(t, tool)
	}
	steps, script := ownAddresses(t, "TRY.md", "127.0.72.")
	checkPrinted(t, steps, runScript(t, script, filepath.Dir(signet), filepath.Dir(envoy)))
}
