package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/durable"
	"signet.example/policy/draft"
)

func newPolicyInit() *cobra.Command {
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Write policies to begin with: for what a mesh declares, or for what was seen",
		Long: `Writes Rego and its tests into a folder, to be looked at, committed and pushed to the
repository of a PolicySource. Nothing that is served changes.

--from-mesh allows exactly what the meshes declare: each virtual node what its backends
lead to, by the methods and paths of their routes; virtual gateways what their routes
take; connections of tcp by identity and port. A rule asks for no headers and no query.
--from-traffic allows what was let through, as far as the connected agents remember it
(signet decisions): by whom, how often, with the ids in paths as *. What comes rarely may
not be among it. Callers without an identity get no rule.

Health checks that the mesh declares pass without a rule, and are listed.
What is in DIR and differs is written over with --force alone; --dry-run tells what would
be written, and its exit code is 3 where that is anything.`,
		Example: `  signet policy init policy/ --from-mesh
  signet policy init policy/ --from-mesh --mesh shop --dry-run
  signet policy init policy/ --from-traffic --since 24h`,
		Args: exactArgs("a DIR"),
	}
	socketFlag(c)
	textOrJSON(c)
	fromMesh := c.Flags().Bool("from-mesh", false, "for what is declared")
	fromTraffic := c.Flags().Bool("from-traffic", false, "for what was let through")
	of := c.Flags().String("mesh", "", "only of this mesh")
	since := c.Flags().Duration("since", 0, "only traffic of this time until now, as 24h; 0: all that is kept")
	dry := c.Flags().Bool("dry-run", false, "tell what would be written, write nothing")
	force := c.Flags().Bool("force", false, "write over files that differ")
	completeFlag(c, "mesh", "meshes")
	_ = c.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions) // fails only for an undefined flag
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := textOrJSONOf(c)
		if err != nil {
			return err
		}
		switch {
		case *fromMesh == *fromTraffic:
			return usage(errors.New("one of --from-mesh and --from-traffic is needed"))
		case *since < 0:
			return usage(fmt.Errorf("--since %s: must not be negative", *since))
		case *since > 0 && *fromMesh:
			return usage(errors.New("--since goes with --from-traffic: what is declared has no time"))
		}
		req := &api.DraftPolicyRequest{Mesh: *of, FromTraffic: *fromTraffic}
		if *since > 0 {
			req.Since = timestamppb.New(time.Now().Add(-*since))
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.DraftPolicy(c.Context(), req)
			if err != nil {
				return err
			}
			tellSilent(c, answer.GetSilent())
			d, err := draftedIn(args[0], answer)
			if err != nil {
				return err
			}
			return d.bring(c, o, *dry, *force)
		})
	}
	return c
}

// What becomes of a file.
const (
	fileNew       = "new"
	fileChanged   = "changed"
	fileUnchanged = "unchanged"
	// fileLeft was written by an earlier call, and is not of what there is now.
	fileLeft = "left"
)

// drafted is what is to be written into a folder.
type drafted struct {
	Folder     string          `json:"folder"`
	Written    bool            `json:"written"`
	Files      []draftedFile   `json:"files"`
	Exemptions []exemptionLine `json:"exemptions"`
	Notes      []string        `json:"notes"`
	Decisions  int32           `json:"decisions"` // that were looked at
}

type draftedFile struct {
	Path    string `json:"path"`
	Action  string `json:"action"`
	Rules   int    `json:"rules"`
	Content string `json:"content"`
}

type exemptionLine struct {
	Destination string   `json:"destination"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	Port        uint32   `json:"port"`
	Sources     []string `json:"sources"`
	Ingress     []string `json:"ingress"` // ranges of its load balancers
}

// draftedIn compares what was drafted with what is in a folder.
func draftedIn(folder string, answer *api.DraftPolicyResponse) (*drafted, error) {
	d := &drafted{
		Folder: folder, Files: []draftedFile{}, Exemptions: []exemptionLine{},
		Notes: append([]string{}, answer.GetNotes()...), Decisions: answer.GetDecisions(),
	}
	for _, f := range answer.GetFiles() {
		if !filepath.IsLocal(f.GetPath()) {
			return nil, fmt.Errorf("the server names the file %q, which is none in a folder", printable(f.GetPath()))
		}
		to := draftedFile{f.GetPath(), fileNew, int(f.GetRules()), f.GetContent()}
		switch is, err := os.ReadFile(filepath.Join(folder, f.GetPath())); {
		case err == nil && bytes.Equal(is, []byte(f.GetContent())):
			to.Action = fileUnchanged
		case err == nil:
			to.Action = fileChanged
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		d.Files = append(d.Files, to)
	}
	for _, e := range answer.GetExemptions() {
		d.Exemptions = append(d.Exemptions, exemptionLine{e.GetDestination(), e.GetMethod(), e.GetPath(), e.GetPort(), append([]string{}, e.GetSources()...), append([]string{}, e.GetIngress()...)})
	}
	return d, d.findLeft()
}

// findLeft adds files of an earlier call whose virtual node has no rules now. They stay.
func (d *drafted) findLeft() error {
	meshes, names := map[string]bool{}, map[string]bool{}
	for _, f := range d.Files {
		mesh, _, _ := strings.Cut(f.Path, "/")
		meshes[mesh], names[filepath.Base(f.Path)] = true, true
	}
	for mesh := range meshes {
		there, err := os.ReadDir(filepath.Join(d.Folder, mesh))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, node := range there {
			for name := range names {
				rel := filepath.Join(mesh, node.Name(), name)
				if slices.ContainsFunc(d.Files, func(f draftedFile) bool { return f.Path == rel }) {
					continue
				}
				if is, err := os.ReadFile(filepath.Join(d.Folder, rel)); err == nil && bytes.Contains(is, []byte(draft.Written)) {
					d.Files = append(d.Files, draftedFile{Path: rel, Action: fileLeft})
				}
			}
		}
	}
	slices.SortFunc(d.Files, func(a, b draftedFile) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (d *drafted) has(action string) []string {
	var list []string
	for _, f := range d.Files {
		if f.Action == action {
			list = append(list, filepath.Join(d.Folder, f.Path))
		}
	}
	return list
}

// bring writes what is new, and what differs where that is wanted, and tells.
func (d *drafted) bring(c *cobra.Command, output string, dry, force bool) error {
	differ := len(d.has(fileNew))+len(d.has(fileChanged)) > 0
	refused := !dry && !force && len(d.has(fileChanged)) > 0
	if !dry && !refused {
		if err := d.write(); err != nil {
			return err
		}
	}
	if err := d.show(c, output); err != nil {
		return err
	}
	switch {
	case len(d.Files) == len(d.has(fileLeft)):
		return errors.New("there is nothing that a rule could be written for")
	case refused:
		return hinted(fmt.Errorf("nothing was written: %s would be written over", fewOf(d.has(fileChanged))), "commit what is there, then --force: git diff shows what has changed")
	case dry && differ:
		return different()
	}
	return nil
}

func (d *drafted) write() error {
	for _, f := range d.Files {
		if f.Action != fileNew && f.Action != fileChanged {
			continue
		}
		path := filepath.Join(d.Folder, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // for others to read
			return err
		}
		if err := durable.WriteFile(path, []byte(f.Content), 0o644); err != nil {
			return err
		}
	}
	d.Written = true
	return nil
}

func (d *drafted) show(c *cobra.Command, output string) error {
	w := c.OutOrStdout()
	if output == "json" {
		return showJSON(w, d)
	}
	var lines []string
	rules := 0
	for _, f := range d.Files {
		line := fmt.Sprintf("%-9s  %s", f.Action, filepath.Join(d.Folder, f.Path))
		if rules += f.Rules; f.Rules > 0 {
			line += fmt.Sprintf("  %s", counted(f.Rules, "rule", "rules"))
		}
		lines = append(lines, line)
	}
	for _, e := range d.Exemptions {
		var from []string
		for _, s := range e.Sources {
			from = append(from, inMesh(s))
		}
		for _, at := range e.Ingress {
			from = append(from, "load balancers at "+at)
		}
		lines = append(lines, fmt.Sprintf("no rule needed: health check %s %s of %s at port %d, from %s", e.Method, e.Path, inMesh(e.Destination), e.Port, fewOf(from)))
	}
	for _, n := range d.Notes {
		lines = append(lines, "note: "+n)
	}
	if d.Written && rules > 0 {
		lines = append(lines, fmt.Sprintf("%s; next: signet policy test %s, commit, push, signet policy sync", counted(rules, "rule", "rules"), d.Folder))
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
