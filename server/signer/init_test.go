package signer_test

import (
	"os"
	"path/filepath"
	"testing"

	"signet.example/server/signer"
)

func TestTheSignerOpensWhatInitMadeWhateverThePasswordFileLooksLike(t *testing.T) {
	for name, content := range map[string]string{
		"two lines":           "secret\nand a note\n",
		"a blank at its end":  "secret \n",
		"Windows' line's end": "secret\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			password := filepath.Join(dir, "password")
			if err := os.WriteFile(password, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := signer.Init(signerTD, dir, password, false); err != nil {
				t.Fatal(err)
			}
			if _, err := signer.CheckFiles(signer.Config{DataDir: dir, PasswordFile: password}); err != nil {
				t.Error(err)
			}
		})
	}
}
