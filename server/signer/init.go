package signer

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
)

// Init makes the CA of a trust domain in a signer's folder, which exists, with its
// first root set and an empty log. The password that encrypts its keys is read
// from a file, which is made with a random one where there is none. confineURIs
// has the CA's certificates permit the trust domain's URIs alone: see ca.Options.
func Init(td spiffeid.TrustDomain, dir, passwordFile string, confineURIs bool) error {
	if err := harden(); err != nil {
		return err
	}
	password, err := makePassword(passwordFile)
	if err != nil {
		return err
	}
	authority := Folder(dir).CA()
	if err := ca.InitWith(authority, td, password, time.Now(), ca.Options{ConfineURIs: confineURIs}); err != nil {
		return fmt.Errorf("make the CA in %s: %w", authority, err)
	}
	return nil
}
