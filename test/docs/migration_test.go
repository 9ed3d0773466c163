package docs

import (
	"path/filepath"
	"testing"

	"signet.example/test/parts"
)

// TestTheCommandsOfThePageOfMigrationDoWhatItSays runs the page from App Mesh's specs to a policy
// that denies.
func TestTheCommandsOfThePageOfMigrationDoWhatItSays(t *testing.T) {
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	for _, tool := range []string{"bash", "git", "curl", "python3"} {
		parts.Program(t, tool)
	}
	steps, script := ownAddresses(t, "MIGRATION.md", "127.0.72.")
	checkPrinted(t, steps, runScript(t, script, filepath.Dir(signet), filepath.Dir(envoy)))
}
