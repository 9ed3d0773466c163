package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newGet() *cobra.Command {
	c := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Show stored resources, after defaults",
		Long: `Shows resources as they are stored, with every default filled in.
With -o yaml the output is a manifest that apply takes back unchanged.
KIND is a kind in any case, singular or plural (virtualnode, virtualnodes), or all;
agents lists the node agents.`,
		Example: `  signet get virtualnodes
  signet get virtualrouter orders -o yaml
  signet get agents`,
		Args: cobra.RangeArgs(1, 2),
		ValidArgs: []string{"all", "agents", "meshes", "virtualnodes", "virtualservices", "virtualrouters",
			"nodegroups", "entries", "bindings", "jwtissuers", "policysources"},
	}
	socketFlag(c)
	outputFlags(c)
	mesh := c.Flags().String("mesh", "", "only of this mesh")
	c.RunE = func(c *cobra.Command, args []string) error {
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			if args[0] == "agents" || args[0] == "agent" {
				return getAgents(c, admin)
			}
			answer, err := admin.Get(c.Context(), &api.GetRequest{Kind: args[0], Mesh: *mesh, Name: name})
			if err != nil {
				return err
			}
			return showObjects(c, answer)
		})
	}
	return c
}

func showObjects(c *cobra.Command, answer *api.GetResponse) error {
	o, err := outputOf(c)
	if err != nil {
		return err
	}
	if o == "yaml" { // the manifests themselves, so that apply takes them back
		for i, obj := range answer.GetObjects() {
			sep := ""
			if i > 0 {
				sep = "---\n"
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "%s%s\n", sep, strings.TrimRight(obj.GetYaml(), "\n")); err != nil {
				return err
			}
		}
		return nil
	}
	v := view{message: answer, header: []string{"kind", "mesh", "name", "revision"}, name: 2}
	for _, obj := range answer.GetObjects() {
		v.rows = append(v.rows, []string{obj.GetKind(), obj.GetMesh(), obj.GetName(), strconv.FormatUint(obj.GetRevision(), 10)})
	}
	return show(c, v)
}

func getAgents(c *cobra.Command, admin api.AdminClient) error {
	answer, err := admin.Agents(c.Context(), &api.AgentsRequest{})
	if err != nil {
		return err
	}
	v := view{message: answer, header: []string{"agent", "group", "connected", "proxies"}, wide: []string{"host", "address", "version", "policy"}}
	for _, a := range answer.GetAgents() {
		v.rows = append(v.rows, []string{a.GetId(), a.GetGroup(), strconv.FormatBool(a.GetConnected()),
			proxySummary(a.GetReport()), a.GetHostname(), a.GetAddress(), a.GetReport().GetVersion(), short(a.GetReport().GetPolicyRevision())})
	}
	return show(c, v)
}

func proxySummary(r *api.Report) string {
	var out []string
	for _, p := range r.GetProxies() {
		out = append(out, p.GetName()+"="+p.GetState())
	}
	return strings.Join(out, ",")
}

func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12]
	}
	return hash
}
