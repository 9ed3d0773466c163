package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newProxies() *cobra.Command {
	c := &cobra.Command{
		Use:   "proxies [NAME…]",
		Short: "Which proxy has which configuration, and what it refused",
		Long: `Shows the proxies of all hosts as their agents report them: whether each has what it is
to have, and since when. CONFIG is one of
  synced    it has acknowledged everything
  pending   it was sent something that it has not acknowledged
  rejected  it refused something, and goes on with what it had: WHY has Envoy's words
  stale     its agent is not connected: it has what it had then
  -         it has nothing yet: STATE and WHY say what it waits for`,
		Example: `  signet proxies
  signet proxies web-1 -o wide
  signet proxies --node orders -o json`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	socketFlag(c)
	outputFlags(c)
	node := c.Flags().String("node", "", "only of this virtual node or gateway: NAME or MESH/NAME")
	completeFlag(c, "node", "virtualnodes")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Agents(c.Context(), &api.AgentsRequest{})
			if err != nil {
				return err
			}
			return showProxies(c, answer, *node, args)
		})
	}
	return c
}

func showProxies(c *cobra.Command, answer *api.AgentsResponse, node string, names []string) error {
	v := view{
		message: answer, header: []string{"proxy", "node", "state", "config", "acknowledged", "why"},
		wide: []string{"agent", "mode", "task", "host", "address", "version", "envoy", "restarts"},
		none: "no proxy is reported; proxies of an agent are in its configuration file",
	}
	found := map[string]bool{}
	for _, a := range answer.GetAgents() {
		keep := a.GetReport().GetProxies()[:0:0]
		for _, p := range a.GetReport().GetProxies() {
			of := p.GetVirtualNode().GetMesh() + "/" + p.GetVirtualNode().GetName()
			if node != "" && node != of && node != p.GetVirtualNode().GetName() || len(names) > 0 && !slices.Contains(names, p.GetName()) {
				continue
			}
			keep, found[p.GetName()] = append(keep, p), true
			config, state, at, why := configOf(a, p)
			v.rows = append(v.rows, []string{
				p.GetName(), of, state, config, at, why,
				a.GetId(), modeOf(a), a.GetReport().GetTask(), a.GetHostname(), p.GetAddress(), short(p.GetConfigVersion()), p.GetEnvoyVersion(), fmt.Sprint(p.GetRestarts()),
			})
		}
		if a.GetReport() != nil {
			a.Report.Proxies = keep
		}
	}
	for _, name := range names {
		if !found[name] {
			return hinted(fmt.Errorf("proxy %q is not reported by any agent", printable(name)), "`signet proxies` lists those that are; the name is that of the agent's configuration file")
		}
	}
	answer.Agents = slices.DeleteFunc(answer.GetAgents(), func(a *api.AgentInfo) bool { return len(a.GetReport().GetProxies()) == 0 })
	slices.SortFunc(v.rows, func(a, b []string) int { return cmp.Or(strings.Compare(a[1], b[1]), strings.Compare(a[0], b[0])) })
	return show(c, v)
}

// modeOf is the mode of an agent: which unit it attests.
func modeOf(a *api.AgentInfo) string {
	if a.GetReport().GetPeerMode() == api.Report_TASK {
		return "task"
	}
	return "host"
}

// configOf is whether a proxy has what it is to have, how it is, since when, and why it is not as it should be.
func configOf(a *api.AgentInfo, p *api.ProxyStatus) (config, state, at, why string) {
	if !a.GetConnected() {
		return "stale", "unknown", timestamp(p.GetAcknowledged()), "its agent is " + a.GetStateWord()
	}
	if why = p.GetReason(); why == "" && len(p.GetFailing()) > 0 {
		why = "its application fails the health check of port " + listed(p.GetFailing())
	}
	if refused := p.GetRejected(); len(refused) > 0 {
		why = fmt.Sprintf("%s %s: %s", kindOfType(refused[0].GetTypeUrl()), refused[0].GetName(), strings.Join(strings.Fields(refused[0].GetMessage()), " "))
		if len(refused) > 1 {
			why += fmt.Sprintf(" (and %d more)", len(refused)-1)
		}
	}
	return p.GetConfigWord(), p.GetStateWord(), timestamp(p.GetAcknowledged()), why
}

// kindOfType is the last word of a type URL: Listener, RouteConfiguration.
func kindOfType(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }
