package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/internal/durable"
)

func newToken() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "token",
		Short:   "Join tokens for node agents",
		Example: "  signet token create --group hosts\n  signet token create --group hosts --out /run/signet/token",
	})
	c.AddCommand(newTokenCreate())
	return c
}

func newTokenCreate() *cobra.Command {
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a token with which one agent joins a node group, once",
		Long: `Makes a join token: 256 random bits, good once and for ten minutes, with the
pin of this trust domain's root set. The server keeps only its hash, so it
cannot be shown again. Give it to the agent by file, environment or stdin.`,
		Example: `  signet token create --group hosts | ssh host 'signet agent --token-file - --server mesh:8443'
  signet token create --group hosts --out /run/signet/token`,
		Args: noArgs,
	}
	socketFlag(c)
	group := c.Flags().String("group", "", "node group that the agent joins (required)")
	ttl := c.Flags().Duration("ttl", 10*time.Minute, "how long the token can be used, a day at most")
	out := c.Flags().String("out", "", "write the token to this file (mode 0600) instead of standard output")
	completeFlag(c, "group", "nodegroups")
	resultFlag(c)
	_ = c.MarkFlagRequired("group") // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		if o == "name" {
			return usage(errors.New("-o name: a token has no name; text, json or yaml"))
		}
		if *ttl <= 0 || *ttl > api.MaxTokenTTL { // which the server would refuse: a mistake in the command
			return usage(fmt.Errorf("--ttl %s: must be more than 0 and at most %s", *ttl, api.MaxTokenTTL))
		}
		write, err := tokenOut(c, *out)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.CreateToken(c.Context(), &api.CreateTokenRequest{Group: *group, Ttl: durationpb.New(*ttl)})
			if err != nil {
				return errors.Join(err, write(""))
			}
			if o != "text" {
				if *out != "" {
					if err := write(answer.GetToken() + "\n"); err != nil {
						return err
					}
					answer.Token = "" // it is in the file, and nowhere else
				}
				return showResult(c, o, answer)
			}
			if err := write(answer.GetToken() + "\n"); err != nil {
				return err
			}
			if *out != "" {
				_, _ = fmt.Fprintf(c.ErrOrStderr(), "wrote %s: one agent may join group %s with it, until %s\n", *out, *group, timestamp(answer.GetExpires())) // stderr is gone: nobody to tell
			}
			return nil
		})
	}
	return c
}

// tokenOut opens the place for a token before there is one: a token that cannot
// be kept must not be made. A file that exists is replaced, never written into:
// others may read it. Nothing written is nothing left.
func tokenOut(c *cobra.Command, path string) (func(string) error, error) {
	if path == "" {
		return func(token string) error {
			_, err := io.WriteString(c.OutOrStdout(), token)
			return err
		}, nil
	}
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	return func(token string) error {
		if token == "" {
			return f.Drop()
		}
		return f.Put([]byte(token))
	}, nil
}
