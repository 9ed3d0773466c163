package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

func newCerts() *cobra.Command {
	c := &cobra.Command{
		Use:   "certs",
		Short: "Which identity holds which certificate, and when it is renewed",
		Long: `Shows the certificates that agents hold now. With --all it adds everything the
issuance log knows: issued, expired, and reserved ones that nobody received.
Times are in UTC; a watch in JSON is one document a line.`,
		Example: `  signet certs
  signet certs --all -o json
  signet certs --watch`,
		Args: cobra.NoArgs,
	}
	socketFlag(c)
	outputFlags(c)
	all := c.Flags().Bool("all", false, "add issued and expired certificates from the issuance log")
	watch := c.Flags().BoolP("watch", "w", false, "show changes as they come")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := outputOf(c)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			stream, err := admin.Certs(c.Context(), &api.CertsRequest{All: *all, Watch: *watch})
			if err != nil {
				return err
			}
			whole := &api.CertsResponse{}
			for {
				answer, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					if *watch && c.Context().Err() != nil {
						return nil // Ctrl-C ends a watch
					}
					return err
				}
				if !*watch {
					whole.Certs = append(whole.Certs, answer.GetCerts()...)
					continue
				}
				if err := showCerts(c, o, answer, true); err != nil {
					return err
				}
			}
			if *watch {
				return nil
			}
			return showCerts(c, o, whole, false)
		})
	}
	return c
}

func showCerts(c *cobra.Command, o string, answer *api.CertsResponse, watching bool) error {
	if watching && o == "json" {
		for _, cert := range answer.GetCerts() {
			if err := showLine(c.OutOrStdout(), cert); err != nil {
				return err
			}
		}
		return nil
	}
	v := view{message: answer, header: []string{"identity", "node", "serial", "expiry", "next renewal", "state"}, wide: []string{"consumer", "not before"}}
	for _, cert := range answer.GetCerts() {
		v.rows = append(v.rows, []string{cert.GetSpiffeId(), cert.GetNode(), cert.GetSerial(), stamp(cert.GetNotAfter()),
			stamp(cert.GetNextRenewal()), cert.GetState(), cert.GetConsumer(), stamp(cert.GetNotBefore())})
	}
	if watching {
		if _, err := fmt.Fprintf(c.OutOrStdout(), "# %s\n", time.Now().UTC().Format(time.RFC3339)); err != nil {
			return err
		}
	}
	return show(c, v)
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format("2006-01-02T15:04:05Z")
}
