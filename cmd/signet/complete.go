package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"signet.example/api"
	"signet.example/server/kinds"
)

// kindNames are the kinds of which something can be stored, as get and delete take them.
func kindNames(of func(kinds.Kind) bool) []string {
	var names []string
	for _, k := range kinds.All() {
		if of(k) {
			names = append(names, k.Plural)
		}
	}
	return names
}

func anyKind(kinds.Kind) bool { return true }

// completionTime bounds what a press of Tab may wait for the server.
const completionTime = 300 * time.Millisecond

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeObjects completes KIND, then up to that number of the names that the server has of it.
func completeObjects(names int, more ...string) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return append(slices.Clone(more), kindNames(anyKind)...), cobra.ShellCompDirectiveNoFileComp
		case len(args) > names:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		mesh, _ := c.Flags().GetString("mesh")
		known := storedNames(c, args[0], mesh)
		return slices.DeleteFunc(known, func(n string) bool { return slices.Contains(args[1:], n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames completes one argument with the names of a kind.
func completeNames(kind string) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return storedNames(c, kind, ""), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes a flag's value with the names of a kind.
func completeFlag(c *cobra.Command, flag, kind string) {
	_ = c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) { // fails only for an undefined flag
		return storedNames(c, kind, ""), cobra.ShellCompDirectiveNoFileComp
	})
}

// completeRevisions completes one argument with the last revisions, the newest first.
func completeRevisions(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if len(args) > 0 {
		return nil, directive
	}
	return offered(c, func(ctx context.Context, admin api.AdminClient) (list []string, _ error) {
		answer, err := admin.History(ctx, &api.HistoryRequest{Limit: fewRevisions})
		for _, r := range answer.GetRevisions() {
			list = append(list, fmt.Sprintf("%d\t%s %s", r.GetRevision(), timestamp(r.GetAt()), changesText(r)))
		}
		return list, err
	}), directive
}

// storedNames are those that the server has of a kind.
func storedNames(c *cobra.Command, kind, mesh string) []string {
	return offered(c, func(ctx context.Context, admin api.AdminClient) (names []string, _ error) {
		if isAgents(kind) {
			answer, err := admin.Agents(ctx, &api.AgentsRequest{})
			for _, a := range answer.GetAgents() {
				names = append(names, a.GetId())
			}
			return names, err
		}
		answer, err := admin.Get(ctx, &api.GetRequest{Kind: kind, Mesh: mesh})
		for _, o := range answer.GetObjects() {
			names = append(names, o.GetName())
		}
		return names, err
	})
}

// offered asks the server; without one there is nothing to offer.
func offered(c *cobra.Command, ask func(context.Context, api.AdminClient) ([]string, error)) (list []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	_ = readEnv(c)                                             // what is wrong there shows when the command runs
	_ = withAdmin(c, func(admin api.AdminClient) (err error) { // whoever presses Tab wants no error
		list, err = ask(ctx, admin)
		return err
	})
	return list
}
