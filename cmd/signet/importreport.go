package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
)

// importOutputs: crd are the manifests of what is complete, wide is text with every field.
var importOutputs = []string{"text", "wide", "json", "yaml", "crd"}

// showReport writes what became of everything, and what an apply changed; answer is nil
// without one.
func showReport(c *cobra.Command, b bringing, r *importer.Report, beginnings []importer.Manifest, answer *api.ApplyResponse) error {
	switch b.output {
	case "json", "yaml":
		return showReportAs(c.OutOrStdout(), b.output, r, answer)
	case "crd":
		if err := printReport(c, c.ErrOrStderr(), r, false); err != nil {
			return err
		}
		for i, m := range slices.Concat(r.Manifests(), beginnings) {
			sep := ""
			if i > 0 {
				sep = "---\n"
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "%s%s", sep, m.Content); err != nil {
				return err
			}
		}
		return nil
	}
	if err := printReport(c, c.OutOrStdout(), r, b.output == "wide"); err != nil {
		return err
	}
	when := " once it is applied"
	if answer != nil {
		when = ""
	}
	var lines strings.Builder
	for _, m := range beginnings {
		if !b.enforce {
			fmt.Fprintf(&lines, "policy of mesh %s: only observes%s, until its MeshOptions say authorization: enforce (docs/POLICY.md)\n", printable(m.Object.Mesh), when)
		}
		if names := r.Underscored(m.Object.Mesh); names != nil {
			fmt.Fprintf(&lines, "headers of mesh %s: %s: its routes look at them, so that they pass%s, which other headers with underscores do not (docs/APPMESH.md)\n", printable(m.Object.Mesh), strings.Join(names, ", "), when)
		}
	}
	if _, err := io.WriteString(c.OutOrStdout(), lines.String()); err != nil {
		return err
	}
	if answer != nil {
		return showChanges(c, "text", answer, false)
	}
	return nil
}

// showReportAs writes the report as JSON or YAML: every field of it is there.
func showReportAs(w io.Writer, format string, r *importer.Report, answer *api.ApplyResponse) error {
	type change struct {
		Action string `json:"action"`
		Kind   string `json:"kind"`
		Mesh   string `json:"mesh"`
		Name   string `json:"name"`
	}
	document := struct {
		Report   *importer.Report `json:"report"`
		Applied  bool             `json:"applied"`
		Changes  []change         `json:"changes"`
		Revision uint64           `json:"revision"`
		Warnings []string         `json:"warnings"`
	}{Report: r, Applied: answer != nil, Changes: []change{}, Revision: answer.GetRevision(), Warnings: append([]string{}, answer.GetWarnings()...)}
	for _, ch := range answer.GetChanges() {
		document.Changes = append(document.Changes, change{ch.GetActionWord(), ch.GetKind(), ch.GetMesh(), ch.GetName()})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	out := b.Bytes()
	if format == "yaml" {
		var err error
		if out, err = toYAML(out); err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
	}
	_, err := w.Write(out)
	return err
}

func printReport(c *cobra.Command, w io.Writer, r *importer.Report, all bool) error {
	on := colors(c, w)
	line := func(color, format string, args ...any) error {
		text := printable(fmt.Sprintf(format, args...))
		_, err := fmt.Fprintln(w, paint(on && color != "", color, text))
		return err
	}
	for _, f := range r.Files {
		if f.Why != "" {
			if err := line("", "%s: skipped: %s", f.Name, f.Why); err != nil {
				return err
			}
		}
	}
	if len(r.Objects) > 0 {
		v := view{header: []string{"kind", "mesh", "name", "state", "where"}}
		for _, o := range r.Objects {
			v.rows = append(v.rows, []string{o.Kind, o.Mesh, o.Name, string(o.State), o.File + ":" + strconv.Itoa(o.Line)})
		}
		t, err := tableOf(c, v)
		if err != nil {
			return err
		}
		if err := t.print(w, v.rows); err != nil {
			return err
		}
	}
	unset := unsetOf(r)
	for _, p := range unset {
		if all {
			break
		}
		if err := line(red, "%s", p); err != nil {
			return err
		}
	}
	for _, g := range groupsOf(r.Findings, all) {
		color := map[dialect.Outcome]string{dialect.Refused: red, dialect.Missing: red, dialect.Dropped: yellow, dialect.Opaque: yellow, importer.Unresolved: yellow}[g[0].Outcome]
		if err := line(color, "%s", g[0]); err != nil {
			return err
		}
		var lines []string
		for i, f := range g[1:] {
			if f.Line != g[i].Line { // of JSON in one line there is one line to tell
				lines = append(lines, strconv.Itoa(f.Line))
			}
		}
		if len(lines) > 0 {
			what := "lines"
			if len(lines) == 1 {
				what = "line"
			}
			if err := line(color, "  the same in %s %s", what, fewOf(lines)); err != nil {
				return err
			}
		}
	}
	return printCounts(line, r)
}

// groupsOf are the findings to show: with all each alone, else without those that need nothing
// done, and those of a file that say the same together, where the first of them is.
func groupsOf(findings []importer.Finding, all bool) [][]importer.Finding {
	type same struct {
		file, text string
		outcome    dialect.Outcome
	}
	var groups [][]importer.Finding
	at := map[same]int{}
	for _, f := range findings {
		quiet := f.Outcome == dialect.Defaulted || f.Outcome == dialect.Mapped && f.Text == "" || noValue.MatchString(f.Text)
		if quiet && !all {
			continue
		}
		k := same{f.File, f.Text, f.Outcome}
		if i, ok := at[k]; ok && !all {
			groups[i] = append(groups[i], f)
			continue
		}
		at[k] = len(groups)
		groups = append(groups, []importer.Finding{f})
	}
	return groups
}

// noValue is how a finding says that a parameter of a template is not known.
var noValue = regexp.MustCompile(`parameter ([A-Za-z0-9]+) has neither a value nor a default`)

// unsetOf are the parameters without a value, each with its places: one may be in many.
func unsetOf(r *importer.Report) []string {
	var names []string
	at := map[string][]string{}
	for _, f := range r.Findings {
		for _, m := range noValue.FindAllStringSubmatch(f.Text, -1) {
			if at[m[1]] == nil {
				names = append(names, m[1])
			}
			at[m[1]] = append(at[m[1]], f.File+":"+strconv.Itoa(f.Line))
		}
	}
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf("parameter %s has neither a value nor a default: --set %s=VALUE; it is used at %s", name, name, fewOf(at[name])))
	}
	return list
}

// printCounts ends the report: what there is to know of it in a few lines.
func printCounts(line func(color, format string, args ...any) error, r *importer.Report) error {
	states, context := map[string]int{}, map[string]int{}
	for _, o := range r.Objects {
		states[string(o.State)]++
	}
	for _, c := range r.Context {
		context[c.Kind]++
	}
	outcomes := map[string]int{}
	for o, n := range r.Counts {
		outcomes[string(o)] = n
	}
	for _, of := range []struct {
		what   string
		n      int
		counts map[string]int
	}{
		{"objects", len(r.Objects), states}, {"fields", sum(outcomes), outcomes}, {"of other kinds", len(r.Context), context},
	} {
		if of.n == 0 {
			continue
		}
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(of.counts)) {
			parts = append(parts, fmt.Sprintf("%d %s", of.counts[k], k))
		}
		if err := line("", "%s: %d (%s)", of.what, of.n, strings.Join(parts, ", ")); err != nil {
			return err
		}
	}
	if len(r.Unfilled) > 0 {
		if err := line(yellow, "placeholders without a value: %s (--set NAME=VALUE, --vars FILE)", strings.Join(r.Unfilled, ", ")); err != nil {
			return err
		}
	}
	if len(r.Unused) > 0 {
		return line(yellow, "values that no placeholder or parameter has: %s", strings.Join(r.Unused, ", "))
	}
	return nil
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
