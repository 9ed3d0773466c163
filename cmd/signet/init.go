package main

import (
	"cmp"
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
which is made with a random password where it does not exist. With --signer-dir
everything except the store goes there, for a signer that has a user of its own.

With --uri-constraint root and issuing certificate permit no other URIs than the
trust domain's (a critical name constraint), so that plain path validation refuses
a stolen CA's certificate for another trust domain. Go, OpenSSL, Envoy, Java and
Node read it; rustls-webpki and Python's cryptography refuse every certificate
under such a CA. It cannot be changed later.`,
		Example: `  signet init --trust-domain prod.example
  signet init --trust-domain prod.example --data-dir /srv/signet --password-file /etc/signet/password
  signet init --trust-domain prod.example --data-dir /var/lib/signet --signer-dir /var/lib/signet-signer`,
		Args: noArgs,
	}
	td := c.Flags().String("trust-domain", "", "the trust domain, e.g. prod.example (required)")
	dir := c.Flags().String("data-dir", defaultDataDir(), "folder to make")
	signer := c.Flags().String("signer-dir", "", "folder for keys, password and issuance log (default <data-dir>)")
	password := c.Flags().String("password-file", "", "password of the key files (default <signer-dir>/password)")
	confine := c.Flags().Bool("uri-constraint", false, "confine the CA's certificates to the trust domain's URIs (Rust's webpki and Python's cryptography then refuse them)")
	_ = c.MarkFlagRequired("trust-domain") // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *password == "" {
			*password = filepath.Join(cmp.Or(*signer, *dir), "password")
		}
		cfg := server.InitConfig{TrustDomain: *td, DataDir: *dir, SignerDir: *signer, PasswordFile: *password, ConfineURIs: *confine}
		if err := server.Init(c.Context(), cfg); err != nil {
			return err
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "made trust domain %s in %s\npassword in %s: keep a copy elsewhere, without it the keys are lost\n%sthen: export SIGNET_SOCKET=%s\n",
			*td, *dir, *password, next(cfg), filepath.Join(abs, "admin.sock"))
		return err
	}
	return c
}

// next is what to do with the folders that were made.
func next(cfg server.InitConfig) string {
	if cfg.SignerDir == "" || cfg.SignerDir == cfg.DataDir {
		return "next: signet server --data-dir " + cfg.DataDir + "\n"
	}
	// Names as in docs/SIGNER.md, which has the units, too.
	return fmt.Sprintf(`next: as root, give each folder to a user of its own, and the signer one for its socket:
      chown -R signet: %[1]s
      chown -R signet-signer: %[2]s
      install -d -o signet-signer /run/signet-signer
next: as signet-signer: signet signer --data-dir %[2]s --password-file %[3]s --listen /run/signet-signer/signer.sock --server-user signet
next: as signet: signet server --data-dir %[1]s --signer unix:/run/signet-signer/signer.sock --signer-user signet-signer
`, cfg.DataDir, cfg.SignerDir, cfg.PasswordFile)
}
