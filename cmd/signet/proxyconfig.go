package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newProxy() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "proxy",
		Short:   "What one proxy has",
		Example: "  signet proxy config web-1\n  signet proxy config demo/web --type route -o yaml",
	})
	c.AddCommand(newProxyConfig())
	return c
}

func newProxyConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config ID",
		Short: "What a proxy is to have, and what it has acknowledged of that",
		Long: `Lists the resources that the server has for a proxy, each with its version and whether
the proxy has it, by what its agent reports. STATE is one of
  acknowledged  it answered all of the type's newest set, and did not refuse this
  rejected      it refused this version, and goes on with what it had: WHY has Envoy's words
  pending       it has not answered all of the type's newest set
  left out      its agent does not let it have this listener: WHY has the reason
  unknown       nobody reports what it has
ID is the proxy's name, as signet proxies lists it, or MESH/NODE for all proxies of a
virtual node or gateway; where none is reported it is what one would get. With --type or
--name, -o json and yaml have what is in each resource. The server has no secrets to show:
certificates and keys come from the agent, and are on its host alone.`,
		Example: `  signet proxy config web-1
  signet proxy config demo/web --type route -o yaml
  signet proxy config web-1 --type cluster --name cds_egress_demo_orders_http_8080 -o json`,
		Args: exactArgs("a proxy's ID"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return proxyNames(c), cobra.ShellCompDirectiveNoFileComp
		},
	}
	socketFlag(c)
	outputFlags(c)
	typ := c.Flags().String("type", "", "only of this type: cluster, endpoint, listener or route")
	name := c.Flags().String("name", "", "only the resource of this name")
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"cluster", "endpoint", "listener", "route"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
	_ = c.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)                                                                                          // the same
	c.RunE = func(c *cobra.Command, args []string) error {
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.ProxyConfig(c.Context(), &api.ProxyConfigRequest{Id: args[0], Type: *typ, Name: *name, Full: *typ != "" || *name != ""})
			if err != nil {
				return err
			}
			return showProxyConfig(c, answer)
		})
	}
	return c
}

func showProxyConfig(c *cobra.Command, answer *api.ProxyConfigResponse) error {
	v := view{
		message: answer, header: []string{"proxy", "node", "type", "name", "version", "state", "why"},
		wide: []string{"agent", "desired", "acknowledged"}, name: 3,
	}
	for _, p := range answer.GetProxies() {
		types := map[string]*api.TypeStatus{}
		for _, t := range p.GetTypes() {
			types[t.GetTypeUrl()] = t
		}
		why := func(r *api.ProxyConfig_Resource) string {
			switch {
			case r.GetMessage() != "":
				return r.GetMessage()
			case p.GetProxy() == nil:
				return "no agent reports a proxy of it"
			case !p.GetConnected():
				return "its agent is not connected"
			}
			return ""
		}
		for _, r := range p.GetResources() {
			t := types[r.GetTypeUrl()]
			v.rows = append(v.rows, []string{
				p.GetProxy().GetName(), callerName(p.GetNode()), kindOfType(r.GetTypeUrl()), r.GetName(), short(r.GetVersion()), r.GetState(), why(r),
				p.GetAgent(), short(t.GetVersion()), short(t.GetAcknowledged()),
			})
		}
		if p.GetAssumed() {
			warn(c.ErrOrStderr(), []string{fmt.Sprintf("no proxy of %s follows it: this is what one of an ordinary shape would get", callerName(p.GetNode()))})
		}
	}
	return show(c, v)
}

// proxyNames are those that agents report; without a server there are none to offer.
func proxyNames(c *cobra.Command) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	var names []string
	_ = readEnv(c)                                       // what is wrong there shows when the command runs
	_ = withAdmin(c, func(admin api.AdminClient) error { // whoever presses Tab wants no error
		answer, err := admin.Agents(ctx, &api.AgentsRequest{})
		for _, a := range answer.GetAgents() {
			for _, p := range a.GetReport().GetProxies() {
				names = append(names, p.GetName())
			}
		}
		return err
	})
	return names
}
