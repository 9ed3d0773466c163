package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
)

func newToken() *cobra.Command {
	c := &cobra.Command{
		Use:     "token",
		Short:   "Join tokens for node agents",
		Example: "  signet token create --group hosts\n  signet token create --group hosts --out /run/signet/token",
	}
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
		Args: cobra.NoArgs,
	}
	socketFlag(c)
	group := c.Flags().String("group", "", "node group that the agent joins (required)")
	ttl := c.Flags().Duration("ttl", 10*time.Minute, "how long the token can be used")
	out := c.Flags().String("out", "", "write the token to this file (mode 0600) instead of standard output")
	_ = c.MarkFlagRequired("group") // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.CreateToken(c.Context(), &api.CreateTokenRequest{Group: *group, Ttl: durationpb.New(*ttl)})
			if err != nil {
				return err
			}
			if *out != "" {
				return os.WriteFile(*out, []byte(answer.GetToken()+"\n"), 0o600)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), answer.GetToken())
			return err
		})
	}
	return c
}
