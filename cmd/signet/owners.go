package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/agent/local"
	"signet.example/agent/wayout"
	"signet.example/internal/private"
)

// newOwners is about who the agent of this host remembers to be the applications
// behind its proxies.
func newOwners() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "owners",
		Short: "Who may call out through the proxies of this host, as the agent remembers it",
		Long: `The agent remembers who listened first where the application of a virtual node
is to be, and refuses another owner (SIG040). Run these on its host, as the user
that data_dir belongs to; the agent may go on running.`,
		Example: "  signet agent owners list\n  signet agent owners accept mesh/shop/virtualNode/web@127.0.0.1 --uid 1000 --unit /system.slice/web.service",
	})
	c.AddCommand(newOwnersList(), newOwnersAccept())
	return c
}

func newOwnersList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List who is remembered", Args: noArgs,
		Example: "  signet agent owners list\n  signet agent owners list --data-dir /var/lib/signet-agent -o json",
	}
	outputFlags(c)
	dir := ownersDir(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		list, err := wayout.Applications(dir())
		if err != nil {
			return ownersHint(err, "--data-dir names the folder of the agent's data_dir")
		}
		v := view{header: []string{"NAME", "UID", "UNIT"}, none: "no application has listened yet"}
		all := &structpb.ListValue{}
		for _, a := range list {
			v.rows = append(v.rows, []string{a.Name, strconv.FormatUint(uint64(a.UID), 10), cmp.Or(a.Unit, "-")})
			all.Values = append(all.Values, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
				"name": structpb.NewStringValue(a.Name), "uid": structpb.NewNumberValue(float64(a.UID)), "unit": structpb.NewStringValue(a.Unit),
			}}))
		}
		v.message = &structpb.Struct{Fields: map[string]*structpb.Value{"owners": structpb.NewListValue(all)}}
		return show(c, v)
	}
	return c
}

func newOwnersAccept() *cobra.Command {
	c := &cobra.Command{
		Use:   "accept NAME",
		Short: "Take another owner for the application",
		Long: `Takes another owner for the application of a virtual node, in the place of the
one that is remembered. Name who it is, as the refusal in the agent's log and in
signet check does: what listens at this moment is not looked at.`,
		Example: "  signet agent owners accept mesh/shop/virtualNode/web@127.0.0.1 --uid 1000 --unit /system.slice/web.service\n" +
			"  signet agent owners accept mesh/shop/virtualNode/web@127.0.0.1 --uid 1000",
		Args: exactArgs("the name of an application"),
	}
	uid := c.Flags().Uint32("uid", 0, "user that the application runs as (required)")
	unit := c.Flags().String("unit", "", "service or container that it runs in; left out, the one in which it is found next")
	_ = c.MarkFlagRequired("uid") // fails only for an undefined flag
	dir := ownersDir(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := wayout.Accept(dir(), wayout.Application{Name: args[0], UID: *uid, Unit: *unit}); err != nil {
			return ownersHint(err, "signet agent owners list has the names")
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "accepted %s\n", printable(args[0]))
		return err
	}
	return c
}

// ownersHint is hint, where what is wrong is not who runs the command.
func ownersHint(err error, hint string) error {
	if errors.As(err, new(*private.ForeignError)) {
		return byOwner(err, false)
	}
	return hinted(err, hint)
}

func ownersDir(c *cobra.Command) func() string {
	dir := c.Flags().String("data-dir", "", "the agent's data_dir (default /var/lib/signet-agent for root, else signet-agent in ~/.local/state)")
	return func() string { return cmp.Or(*dir, local.DefaultDataDir()) }
}
