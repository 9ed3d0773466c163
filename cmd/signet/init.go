package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"signet.example/server"
)

func newInit() *cobra.Command {
	c := &cobra.Command{
		Use:   "init --trust-domain DOMAIN",
		Short: "Make a trust domain: root, issuing key and store, in a data folder",
		Long: `Makes the folder that a server works in: a root and an issuing authority whose
keys are encrypted with a password, the first root set, and an empty store.
What exists is refused, never overwritten. The password is read from a file,
which is made with a random password where it does not exist.`,
		Example: `  signet init --trust-domain prod.example
  signet init --trust-domain prod.example --data-dir /srv/signet --password-file /etc/signet/password`,
		Args: noArgs,
	}
	td := c.Flags().String("trust-domain", "", "the trust domain, e.g. prod.example (required)")
	dir := c.Flags().String("data-dir", defaultDataDir(), "folder to make")
	password := c.Flags().String("password-file", "", "password of the key files (default <data-dir>/password)")
	_ = c.MarkFlagRequired("trust-domain") // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *password == "" {
			*password = filepath.Join(*dir, "password")
		}
		if err := server.Init(c.Context(), server.InitConfig{TrustDomain: *td, DataDir: *dir, PasswordFile: *password}); err != nil {
			return err
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), `made trust domain %s in %s
password in %s: keep a copy elsewhere, without it the keys are lost
next: signet server --data-dir %s
then: export SIGNET_SOCKET=%s
`, *td, *dir, *password, *dir, filepath.Join(abs, "admin.sock"))
		return err
	}
	return c
}
