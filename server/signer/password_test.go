package signer_test

import (
	"os"
	"path/filepath"
	"testing"

	"signet.example/server/signer"
)

func TestInitReadsThePasswordAsTheSignerDoes(t *testing.T) {
	for name, content := range map[string]string{
		"nothing was there":  "",
		"two lines":          "secret\nand a note\n",
		"a blank at its end": "secret \n",
		"Windows' lines":     "secret\r\n",
	} {
		path := filepath.Join(t.TempDir(), "password")
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		made, err := signer.MakePassword(path)
		if err != nil {
			t.Fatal(err)
		}
		if read, err := signer.ReadPassword(path); err != nil || string(read) != string(made) || len(read) == 0 {
			t.Errorf("%s: init has %q, the signer %q, %v", name, made, read, err)
		}
	}
}
