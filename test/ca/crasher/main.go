// Command crasher issues certificates as fast as it can until it is killed. It
// prints "ready" when it begins, and then each certificate that an issuer was
// answered with, in base64, one to a line and in one write: what a reader of
// its output has seen whole is what a client received.
//
// "crasher init" makes the authority instead: without the race detector, under
// which deriving a key from a password takes seconds.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"signet.example/ca"
)

const callers = 50

func main() {
	verb, dir, password := os.Args[1], os.Args[2], []byte(os.Args[3])
	do := func() error { return run(context.Background(), dir, password) }
	if verb == "init" {
		do = func() error {
			return ca.Init(dir, spiffeid.RequireTrustDomainFromString("mesh.example"), password, time.Now())
		}
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "crasher:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, password []byte) error {
	a, err := ca.OpenAuthority(dir, password, time.Now, nil)
	if err != nil {
		return err
	}
	l, err := ca.OpenLog(ca.LogPath(dir))
	if err != nil {
		return err
	}
	i := ca.NewIssuer(a, l, ca.Profiles{})
	fmt.Println("ready")
	g, ctx := errgroup.WithContext(ctx)
	for caller := range callers {
		g.Go(func() error { return issue(ctx, i, a.TrustDomain(), caller) })
	}
	return g.Wait()
}

func issue(ctx context.Context, i *ca.Issuer, td spiffeid.TrustDomain, caller int) error {
	for n := 0; ctx.Err() == nil; n++ {
		batch := make([]ca.Request, 1+(caller+n)%4)
		for k := range batch {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			if err != nil {
				return err
			}
			id, err := spiffeid.FromPathf(td, "/crash/c%d-%d", caller, k)
			if err != nil {
				return err
			}
			batch[k] = ca.Request{ID: id, CSR: csr, Profile: ca.ProfileWorkload, Requester: "server", Lifetime: time.Minute}
		}
		for _, r := range i.Issue(ctx, batch) {
			if r.Err != nil {
				return r.Err
			}
			line := base64.StdEncoding.AppendEncode(nil, r.Chain[0])
			if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}
