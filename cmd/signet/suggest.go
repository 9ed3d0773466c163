package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/agent/local"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/mesh"
)

func newWorkloadSuggest() *cobra.Command {
	c := &cobra.Command{
		Use:   "suggest PID",
		Short: "Propose an Entry, or a Binding, for a process that runs",
		Long: `Shows the selectors that the agent sees of a running process: by which method, whether it has each of them
after its next start, and who else of this host has it now; then the YAML of an Entry that asks for those that last and
that as few others as can be have. What is printed is YAML as a whole, and can be applied as it stands once --group says
in which NodeGroup the host is. --binding makes it the Binding of a proxy.`,
		Example: `  signet workload suggest 4711
  signet workload suggest 4711 --group hosts --spiffe-id spiffe://prod.example/orders > orders.yaml
  signet workload suggest 4711 --group hosts --virtual-node shop/orders --binding | signet apply -f -
  signet workload suggest 4711 -o json`,
		Args:              exactArgs("a PID"),
		ValidArgsFunction: completePIDs,
	}
	textOrJSON(c)
	sockets := socketDirFlag(c)
	var s suggested
	c.Flags().StringVar(&s.group, "group", "", "NodeGroup of this host")
	c.Flags().StringVar(&s.name, "name", "", "name of the Entry or Binding; by default that of what runs")
	c.Flags().StringVar(&s.id, "spiffe-id", "", "identity; by default one of that name")
	c.Flags().StringVar(&s.node, "virtual-node", "", "MESH/NAME of the virtual node whose identity it is")
	c.Flags().BoolVar(&s.binding, "binding", false, "a Binding: the process is the proxy of the --virtual-node")
	for _, flag := range []string{"group", "name", "spiffe-id", "virtual-node"} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions) // fails only for an undefined flag: a host often has no server to ask
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := textOrJSONOf(c)
		if err != nil {
			return err
		}
		if err := s.check(); err != nil {
			return usage(err)
		}
		p, err := lookAtProcess(c, *sockets, args[0], true)
		if err != nil {
			return err
		}
		yaml, err := s.manifest(p)
		if err != nil {
			return err
		}
		if o == "json" {
			return showJSON(c.OutOrStdout(), struct {
				Process  *local.Process `json:"process"`
				Manifest string         `json:"manifest"`
			}{p, string(yaml)})
		}
		var b bytes.Buffer
		if err := s.comment(c, &b, p); err != nil {
			return err
		}
		b.Write(yaml)
		_, err = c.OutOrStdout().Write(b.Bytes())
		return err
	}
	return c
}

// suggested is what is to be proposed, as far as the process does not say it.
type suggested struct {
	group, name, id, node string
	binding               bool
}

func (s suggested) check() error {
	mesh, name, ok := strings.Cut(s.node, "/")
	switch {
	case s.node != "" && (!ok || mesh == "" || name == ""):
		return fmt.Errorf("--virtual-node %s: must be MESH/NAME", printable(s.node))
	case s.node != "" && s.id != "":
		return errors.New("--virtual-node and --spiffe-id: it has one identity, name one of them")
	case s.binding && s.id != "":
		return errors.New("--binding and --spiffe-id: a Binding gives the identity of its virtual node, which --virtual-node names")
	}
	return nil
}

// Placeholders stand where nothing was said; no server takes them.
const (
	groupPlaceholder  = "GROUP"
	domainPlaceholder = "TRUST-DOMAIN"
	meshPlaceholder   = "MESH"
	nodePlaceholder   = "VIRTUAL-NODE"
)

func (s suggested) isBinding(p *local.Process) bool {
	return s.binding || p.Proposed.Binding && s.id == ""
}

// manifest is the Entry or Binding, which is as good as can be told without a server.
func (s suggested) manifest(p *local.Process) ([]byte, error) {
	meta := manifest.Meta{Name: cmp.Or(s.name, p.Proposed.Name)}
	group := cmp.Or(s.group, groupPlaceholder)
	var node *identity.VirtualNodeName
	if mesh, name, ok := strings.Cut(s.node, "/"); ok {
		node = &identity.VirtualNodeName{Mesh: mesh, Name: name}
	}
	domain, unknown := identity.ParseTrustDomain(p.TrustDomain)
	if s.isBinding(p) {
		if node == nil {
			node = &identity.VirtualNodeName{Mesh: meshPlaceholder, Name: nodePlaceholder}
		}
		spec := identity.BindingSpec{Group: group, Mesh: node.Mesh, VirtualNode: node.Name, Selectors: p.Proposed.Selectors}
		if _, err := spec.Build(meta.Name, domain); err != nil && unknown == nil {
			return nil, usage(err)
		}
		return manifest.Encode(mesh.SignetGroupVersion, "Binding", meta, &spec), nil
	}
	spec := identity.EntrySpec{Group: group, SPIFFEID: s.id, VirtualNode: node, Selectors: p.Proposed.Selectors}
	if node == nil && s.id == "" {
		spec.SPIFFEID = "spiffe://" + cmp.Or(p.TrustDomain, domainPlaceholder) + "/" + ownPath(meta.Name)
	}
	if _, err := spec.Build(meta.Name, domain); err != nil && unknown == nil {
		return nil, usage(err)
	}
	return manifest.Encode(mesh.SignetGroupVersion, "Entry", meta, &spec), nil
}

// ownPath is a path of one segment, as no virtual node of a mesh has one.
func ownPath(name string) string {
	if name == "signet" { // reserved
		return "signet-process"
	}
	return name
}

// comment is what to know of the manifest, as comments before it.
func (s suggested) comment(c *cobra.Command, w io.Writer, p *local.Process) error {
	var text bytes.Buffer
	line := func(format string, args ...any) { text.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	line("process %s", processText(p))
	v := view{header: []string{"selector", "method", "lasts", "others", "shared with"}}
	for _, sel := range p.Selectors {
		others := "-"
		if sel.Others >= 0 {
			others = strconv.Itoa(sel.Others)
		}
		v.rows = append(v.rows, []string{sel.Selector, sel.Method, sel.Lasts, others, sel.With})
	}
	t, err := tableOf(c, v)
	if err == nil {
		err = t.print(&text, v.rows)
	}
	if err != nil {
		return err
	}
	for _, m := range p.Missing {
		line("no %s", m)
	}
	line("lasts: stable is for good, release until another one is deployed, start until its next start; others: of %d processes of this host that were looked at", p.Looked)
	for _, n := range p.Proposed.Notes {
		line("note: %s", n)
	}
	if n := len(p.Proposed.Fits) + p.Proposed.FitsMore; n > 0 {
		line("note: what is proposed fits %d other processes now: %s", n, pidsText(p.Proposed))
	}
	for _, h := range p.Fitting {
		if h.Given {
			line("note: it is given %s already, by %s %s", h.SPIFFEID, h.Kind, h.Name)
		}
	}
	if s.group == "" {
		line("to do: %s stands for the NodeGroup of this host: signet get agents, where the server runs, shows it; --group names it", groupPlaceholder)
	}
	if s.isBinding(p) && s.node == "" {
		line("to do: %s and %s stand for the virtual node: --virtual-node MESH/NAME names it", meshPlaceholder, nodePlaceholder)
	}
	for l := range strings.Lines(text.String()) {
		if _, err := io.WriteString(w, "# "+l); err != nil {
			return err
		}
	}
	return nil
}

func pidsText(p local.Proposal) string {
	var list []string
	for _, pid := range p.Fits {
		list = append(list, strconv.Itoa(pid))
	}
	text := strings.Join(list, ", ")
	if p.FitsMore > 0 {
		text += fmt.Sprintf(" and %d more", p.FitsMore)
	}
	return text
}
