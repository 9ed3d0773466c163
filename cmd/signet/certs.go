package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
)

func newCerts() *cobra.Command {
	c := &cobra.Command{
		Use:   "certs",
		Short: "Which identity holds which certificate, and when it is renewed",
		Long: `Shows the certificates that agents hold now. With --all it adds everything the
issuance log knows: issued, expired, and reserved ones that nobody received.
A certificate is held for a consumer: a proxy, applications (workload) or the agent
itself. Times are in UTC; a watch in JSON is one certificate a line.`,
		Example: `  signet certs
  signet certs --all -o json
  signet certs --columns identity,expiry --no-headers
  signet certs --watch`,
		Args: noArgs,
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
			if *watch {
				return watchCerts(c, o, stream)
			}
			whole := &api.CertsResponse{}
			for {
				answer, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return show(c, certsView(whole))
				}
				if err != nil {
					return err
				}
				whole.Certs = append(whole.Certs, answer.GetCerts()...)
			}
		})
	}
	return c
}

// watchCerts shows changes until Ctrl-C. A server that ends is an error: whoever
// watches must not take silence for quiet.
func watchCerts(c *cobra.Command, o string, stream grpc.ServerStreamingClient[api.CertsResponse]) error {
	var t *table
	for {
		answer, err := stream.Recv()
		switch {
		case err != nil && c.Context().Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return &exitError{err: errors.New("the server ended the watch"), code: exitUnreachable, hint: "start it again, then watch again"}
		case err != nil:
			return err
		}
		v := certsView(answer)
		if t == nil {
			if t, err = tableOf(c, v); err != nil {
				return err
			}
		}
		if err := showChange(c, o, t, v); err != nil {
			return err
		}
	}
}

// showChange writes one answer of a watch: rows, names, or one document a certificate.
func showChange(c *cobra.Command, o string, t *table, v view) error {
	w := c.OutOrStdout()
	switch o {
	case "json":
		for _, cert := range v.message.(*api.CertsResponse).GetCerts() {
			if err := showLine(w, cert); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		if _, err := fmt.Fprintln(w, "---"); err != nil {
			return err
		}
		return showMessage(w, o, v.message)
	case "name":
		return show(c, v)
	}
	return t.print(w, v.rows)
}

func certsView(answer *api.CertsResponse) view {
	v := view{
		message: answer, header: []string{"identity", "node", "consumer", "serial", "expiry", "next renewal", "state"},
		wide: []string{"not before", "node id"}, none: "no certificate: no agent is connected, or none has an identity to serve; see signet check",
	}
	for _, cert := range answer.GetCerts() {
		v.rows = append(v.rows, []string{
			cert.GetSpiffeId(), nodeName(cert.GetNode()), cert.GetConsumerWord(), cert.GetSerial(), timestamp(cert.GetNotAfter()),
			timestamp(cert.GetNextRenewal()), cert.GetStateWord(), timestamp(cert.GetNotBefore()), cert.GetNode(),
		})
	}
	return v
}

// nodeName is an agent's name as `signet get agents` has it.
func nodeName(id string) string {
	if _, name, ok := strings.Cut(id, "/signet/agent/"); ok {
		return name
	}
	return strings.TrimPrefix(id, "agent/") // as -o name has it
}

func timestamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return plain.UTC(t.AsTime())
}
