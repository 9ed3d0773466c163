package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/internal/durable"
	"signet.example/mesh"
	"signet.example/spire"
)

func newImportSpire() *cobra.Command {
	c := &cobra.Command{
		Use:   "spire FILE|FOLDER…",
		Short: "Turn SPIRE's registrations into Entries and NodeGroups",
		Long: `Reads what spire-server entry show -output json prints (of SPIRE 1.15), or what entry create -data
reads, and writes manifests for signet apply: an Entry for each registration, a NodeGroup for each node alias and for
each agent that joined by a token. No server is asked. The report, on standard error, says of each what became of it:
whole; partial, by the fields that nothing here stands for; or refused, and why. What is partial is
written with --partial, with what it lacks as a comment; what is refused is not written.

An Entry hangs on a NodeGroup: a parent that is no node alias of what was read needs --group. Downstream
registrations are listed by entry show -downstream alone.
Exit codes: 0 all of it is whole; 3 not all of it; 1 nothing was written.`,
		Example: `  spire-server entry show -output json | signet import spire - | signet apply -f -
  signet import spire entries.json --trust-domain prod.example --to entries/
  signet import spire entries.json --group spiffe://prod.example/spire/agent/x509pop/3f1c=hosts --partial
  signet import spire entries.json -o json`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(fmt.Errorf("%s needs a file, a folder or - for standard input", c.CommandPath()))
			}
			return nil
		},
	}
	textOrJSON(c)
	c.Flags().Bool("no-headers", false, "leave out the report's header")
	domain := c.Flags().String("trust-domain", "", "trust domain of the Entries, where it is another than SPIRE's")
	groups := c.Flags().StringArray("group", nil, "SPIFFE-ID=NAME: NodeGroup in the place of a parent; may be repeated")
	partial := c.Flags().Bool("partial", false, "write what is good without some of its fields, too")
	to := c.Flags().String("to", "", "folder for one file for each object, in place of standard output; none of them may exist")
	for _, flag := range []string{"trust-domain", "group"} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions) // fails only for an undefined flag
	}
	_ = c.MarkFlagDirname("to") // the same
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := textOrJSONOf(c)
		if err != nil {
			return err
		}
		options := spire.Options{TrustDomain: *domain, Groups: map[string]string{}, APIVersion: mesh.SignetGroupVersion}
		for _, g := range *groups {
			at := strings.LastIndexByte(g, '=')
			if at <= 0 || at == len(g)-1 {
				return usage(fmt.Errorf("--group %s: must be SPIFFE-ID=NAME", printable(g)))
			}
			options.Groups[g[:at]] = g[at+1:]
		}
		files, skipped, err := importFiles(c, args, false)
		if err != nil {
			return err
		}
		for _, f := range skipped {
			_, _ = fmt.Fprintln(c.ErrOrStderr(), printable(f.Name+": skipped: "+f.Why)) // stderr is gone: nobody to tell
		}
		var all []spire.Registration
		for _, f := range files {
			list, err := spire.Read(f.Name, f.Content)
			if err != nil {
				return err
			}
			all = append(all, list...)
		}
		report, err := spire.Convert(all, options)
		if err != nil {
			return usage(err)
		}
		if err := showSpire(c, report, o, *partial, *to); err != nil {
			return err
		}
		switch {
		case len(report.Written(*partial)) == 0:
			return hinted(errors.New("nothing was written: no registration can be taken"), "see the report above; --partial takes those without some of their fields, --group names parents' NodeGroups")
		case !report.Done():
			return different()
		}
		return nil
	}
	return c
}

// showSpire writes manifests, and of all what became of it.
func showSpire(c *cobra.Command, report *spire.Report, output string, partial bool, to string) error {
	written := report.Written(partial)
	if to != "" {
		if err := writeSpire(written, to); err != nil {
			return err
		}
	}
	if output == "json" {
		return showJSON(c.OutOrStdout(), report)
	}
	if err := reportSpire(c, c.ErrOrStderr(), report, partial); err != nil || to != "" {
		return err
	}
	var b bytes.Buffer
	for i, x := range written {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.WriteString(x.Manifest)
	}
	_, err := c.OutOrStdout().Write(b.Bytes())
	return err
}

// writeSpire writes files that were not there.
func writeSpire(list []*spire.Object, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // for others to read
		return err
	}
	file := func(x *spire.Object) string {
		return filepath.Join(folder, strings.ToLower(x.Kind)+"-"+x.Name+".yaml")
	}
	seen := map[string]bool{}
	for _, x := range list {
		_, err := os.Lstat(file(x))
		if err == nil || seen[file(x)] {
			return fmt.Errorf("%s is there already: name another folder", file(x))
		}
		seen[file(x)] = true
	}
	for _, x := range list {
		if err := durable.WriteFile(file(x), []byte(x.Manifest), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func reportSpire(c *cobra.Command, w io.Writer, report *spire.Report, partial bool) error {
	v := view{header: []string{"kind", "name", "state", "spiffe id", "where"}}
	for _, x := range report.Objects {
		v.rows = append(v.rows, []string{x.Kind, x.Name, string(x.State), x.SPIFFEID, fmt.Sprintf("%s:%d", x.File, x.Line)})
	}
	t, err := tableOf(c, v)
	if err == nil {
		err = t.print(w, v.rows)
	}
	if err != nil {
		return err
	}
	on := colors(c, w)
	line := func(color, format string, args ...any) error {
		_, err := fmt.Fprintln(w, paint(on && color != "", color, printable(fmt.Sprintf(format, args...))))
		return err
	}
	for _, x := range report.Objects {
		at := fmt.Sprintf("%s:%d: %s %s", x.File, x.Line, x.Kind, x.Name)
		for _, of := range []struct {
			color, what string
			list        []string
		}{{red, "refused: ", x.Why}, {yellow, "not translated: ", x.Lost}, {"", "", x.Notes}} {
			for _, text := range of.list {
				if err := line(of.color, "%s: %s%s", at, of.what, text); err != nil {
					return err
				}
			}
		}
	}
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(report.Counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", report.Counts[s], s))
	}
	if err := line("", "objects: %d (%s)", len(report.Objects), strings.Join(parts, ", ")); err != nil || partial || report.Counts[spire.Partial] == 0 {
		return err
	}
	return line(yellow, "Entries that are partial were not written: --partial writes them, without what they lack")
}
