package server_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"signet.example/policy/check"
	source "signet.example/policy/repo"
	"signet.example/server/policies"
	"signet.example/server/signer"
)

// TestMain is also the signer and what reads policies: server.Run starts its own
// executable with the argument "signer" or "policy-child", and under test that is
// this one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "signer" {
		if err := runSigner(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "signer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "policy-child" {
		if err := policies.RunChild(context.Background(), checked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Credentials of nobody, for the Cloud Map of a test: they are read from the environment alone.
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret"} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if madeIn != "" {
			_ = os.RemoveAll(madeIn) // in the system's own folder for such
		}
		os.Exit(code)
	}))
}

func runSigner(args []string) error {
	var cfg signer.Config
	flags := flag.NewFlagSet("signer", flag.ContinueOnError)
	flags.StringVar(&cfg.DataDir, "data-dir", "", "")
	flags.StringVar(&cfg.PasswordFile, "password-file", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	conn, err := signer.Inherited()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return signer.Run(ctx, cfg, conn)
}

// checked is what the child says of a tree of policies, as in the program itself.
func checked(ctx context.Context, tree source.Tree) (passed int, warnings []string, err error) {
	report, err := check.Tree(ctx, tree)
	return report.Passed, report.Warnings, err
}
