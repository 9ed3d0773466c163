package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"signet.example/api"
	"signet.example/server/kinds"
)

func newGet() *cobra.Command {
	c := &cobra.Command{
		Use:   "get KIND [NAME…]",
		Short: "Show stored resources, after defaults",
		Long: `Shows resources as they are stored, with every default filled in.
With -o yaml the output is a manifest that apply takes back unchanged.
An object can be named in one word, too, as -o name prints it: kind/name or
kind/mesh/name. KIND is all, or a kind in any case, singular or plural:
  ` + strings.Join(kindNames(func(k kinds.Kind) bool { return !k.Own() }), ", ") + `,
  ` + strings.Join(kindNames(kinds.Kind.Own), ", ") + `, and agents.

Agents are not applied: they join. The state of each is one of
  connected  it is served now
  joined     it joined a moment ago, and was not seen since
  away       it is not connected, and what it has cached goes on working
  gone       its certificate has ended, too: signet delete agent forgets it
  banned     by signet ban, for good`,
		Example: `  signet get virtualnodes
  signet get virtualrouter orders -o yaml
  signet get virtualnode/shop/web -o yaml
  signet get all --columns kind,name
  signet get agents -o wide
  signet get agent web-01-3fa9c2d47b -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if err := refArgs(args, 0); err != nil {
				return usage(fmt.Errorf("%s %w", c.CommandPath(), err))
			}
			return nil
		},
		ValidArgsFunction: completeObjects(math.MaxInt, "all", "agents"),
	}
	socketFlag(c)
	outputFlags(c)
	mesh := c.Flags().String("mesh", "", "only of this mesh")
	completeFlag(c, "mesh", "meshes")
	c.RunE = func(c *cobra.Command, args []string) error {
		refs, err := refsOf(args, *mesh)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			if isAgents(refs[0].kind) {
				return getAgents(c, admin, refs)
			}
			all := &api.GetResponse{}
			for _, r := range refs {
				answer, err := admin.Get(c.Context(), &api.GetRequest{Kind: r.kind, Mesh: r.mesh, Name: r.name})
				if err != nil {
					return err
				}
				all.Objects = append(all.Objects, answer.GetObjects()...)
			}
			return showObjects(c, all)
		})
	}
	return c
}

func showObjects(c *cobra.Command, answer *api.GetResponse) error {
	o, err := outputOf(c)
	if err != nil {
		return err
	}
	switch o {
	case "yaml": // the manifests themselves, so that apply takes them back
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
	case "json":
		return showManifests(c.OutOrStdout(), answer)
	}
	v := view{message: answer, header: []string{"kind", "mesh", "name", "revision"}, wide: []string{"owner"}, none: "nothing of this kind is stored"}
	// Services alone have addresses, and where their mesh gives them.
	addresses := slices.ContainsFunc(answer.GetObjects(), func(o *api.Object) bool { return o.GetAddress() != "" })
	if addresses {
		v.wide = append(v.wide, "address")
	}
	for _, obj := range answer.GetObjects() {
		v.names = append(v.names, objectName(obj.GetKind(), obj.GetMesh(), obj.GetName()))
		row := []string{obj.GetKind(), obj.GetMesh(), obj.GetName(), strconv.FormatUint(obj.GetRevision(), 10), obj.GetOwner()}
		if addresses {
			row = append(row, obj.GetAddress())
		}
		v.rows = append(v.rows, row)
	}
	return show(c, v)
}

// showManifests writes the objects with their manifests as JSON, not as YAML in
// a string: jq must reach every field.
func showManifests(w io.Writer, answer *api.GetResponse) error {
	type object struct {
		Kind     string          `json:"kind"`
		Mesh     string          `json:"mesh"`
		Name     string          `json:"name"`
		Revision uint64          `json:"revision"`
		Owner    string          `json:"owner,omitempty"`
		Address  string          `json:"address,omitempty"`
		Manifest json.RawMessage `json:"manifest"`
	}
	objects := []object{}
	for _, obj := range answer.GetObjects() {
		manifest, err := yaml.YAMLToJSON([]byte(obj.GetYaml()))
		if err != nil {
			return fmt.Errorf("encode %s: %w", objectName(obj.GetKind(), obj.GetMesh(), obj.GetName()), err)
		}
		objects = append(objects, object{obj.GetKind(), obj.GetMesh(), obj.GetName(), obj.GetRevision(), obj.GetOwner(), obj.GetAddress(), manifest})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(map[string]any{"objects": objects})
}

func isAgents(kind string) bool {
	return strings.EqualFold(kind, "agent") || strings.EqualFold(kind, "agents")
}

func getAgents(c *cobra.Command, admin api.AdminClient, refs []ref) error {
	answer, err := admin.Agents(c.Context(), &api.AgentsRequest{})
	if err != nil {
		return err
	}
	if refs[0].name != "" {
		all := answer.GetAgents()
		answer.Agents = nil
		for _, r := range refs {
			i := slices.IndexFunc(all, func(a *api.AgentInfo) bool { return a.GetId() == nodeName(r.name) })
			if i < 0 || !isAgents(r.kind) {
				return hinted(fmt.Errorf("%s %q does not exist", printable(r.kind), printable(r.name)), "`signet get agents` lists agents; other kinds are asked for apart from them")
			}
			answer.Agents = append(answer.Agents, all[i])
		}
	}
	v := view{
		message: answer, header: []string{"agent", "group", "host", "state", "last seen", "certificate end", "proxies"},
		wide: []string{"address", "joined", "attestation", "version", "policy", "ban reason"},
		none: "no agent has joined; make a token for one: signet token create --group <group>",
	}
	for _, a := range answer.GetAgents() {
		v.names = append(v.names, objectName("agent", "", a.GetId()))
		v.rows = append(v.rows, []string{
			a.GetId(), a.GetGroup(), a.GetHostname(), a.GetStateWord(), timestamp(a.GetLastSeen()), timestamp(a.GetNotAfter()), proxySummary(a),
			a.GetAddress(), timestamp(a.GetJoined()), a.GetAttestation(), a.GetReport().GetVersion(), short(a.GetReport().GetPolicyRevision()), a.GetBanReason(),
		})
	}
	return show(c, v)
}

// proxySummary is the state of an agent's proxies; what an agent that went away
// said last is no state.
func proxySummary(a *api.AgentInfo) string {
	var out []string
	for _, p := range a.GetReport().GetProxies() {
		state := p.GetStateWord()
		if !a.GetConnected() {
			state = "unknown"
		}
		out = append(out, p.GetName()+"="+state)
	}
	return strings.Join(out, ",")
}

func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12]
	}
	return hash
}
