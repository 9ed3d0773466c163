package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/plain"
)

// view is how a read command shows an answer: the message itself for json and
// yaml, rows for people.
type view struct {
	message proto.Message
	header  []string
	// wide are the extra columns of -o wide, after those of header.
	wide []string
	rows [][]string // each as long as header and wide together
	name int        // the column that -o name prints
	// names are what -o name prints in place of a column, one for each row.
	names []string
	// none is said on standard error where there are no rows.
	none string
}

var outputs = []string{"table", "wide", "json", "yaml", "name"}

func outputFlags(c *cobra.Command) {
	c.Flags().StringP("output", "o", "table", "table, wide, json, yaml or name")
	c.Flags().Bool("no-headers", false, "leave out the table's header")
	c.Flags().StringSlice("columns", nil, "columns of the table by their titles, in this order: first,second")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
	_ = c.RegisterFlagCompletionFunc("columns", cobra.NoFileCompletions)                                            // the same
}

func outputOf(c *cobra.Command) (string, error) {
	o, _ := c.Flags().GetString("output")
	if !slices.Contains(outputs, o) {
		return "", usage(fmt.Errorf("-o %s: must be table, wide, json, yaml or name", o))
	}
	if c.Flags().Changed("columns") && o != "table" && o != "wide" {
		return "", usage(fmt.Errorf("--columns chooses columns of a table: it does not go with -o %s", o))
	}
	return o, nil
}

func show(c *cobra.Command, v view) error {
	o, err := outputOf(c)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	switch o {
	case "json", "yaml":
		return showMessage(w, o, v.message)
	case "name":
		for i, r := range v.rows {
			name := r[v.name]
			if v.names != nil {
				name = v.names[i]
			}
			if _, err := fmt.Fprintln(w, printable(name)); err != nil {
				return err
			}
		}
		return nil
	}
	t, err := tableOf(c, v)
	if err != nil {
		return err
	}
	if err := t.print(w, v.rows); err != nil {
		return err
	}
	if len(v.rows) == 0 && v.none != "" {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), v.none) // stderr is gone: nobody to tell
	}
	return nil
}

// toYAML is JSON laid out as YAML. JSON is YAML, too, and stays what it is where it has what a
// terminal obeys: there it is escaped, and the library writes it as it is.
func toYAML(text []byte) ([]byte, error) {
	out, err := yaml.JSONToYAML(text)
	if err != nil || !bytes.ContainsFunc(out, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
		return out, err
	}
	return text, nil
}

// showMessage writes JSON with two spaces, or the same document as YAML.
// Every field is there, also where it is false, zero or empty: a script can rely
// on it. protojson alone varies its spacing on purpose, so the text is laid out again.
func showMessage(w io.Writer, format string, m proto.Message) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: false, EmitDefaultValues: true}.Marshal(api.InWords(m))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if format == "yaml" {
		y, err := toYAML(out.Bytes())
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		_, err = w.Write(y)
		return err
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

// resultFlag is -o of a command that changes something: what it did as text for
// people, as the server's whole answer, or as the names of what it changed.
func resultFlag(c *cobra.Command) {
	c.Flags().StringP("output", "o", "text", "text, json, yaml or name")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(results, cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
}

var results = []string{"text", "json", "yaml", "name"}

func resultOf(c *cobra.Command) (string, error) {
	o, _ := c.Flags().GetString("output")
	if !slices.Contains(results, o) {
		return "", usage(fmt.Errorf("-o %s: must be text, json, yaml or name", o))
	}
	return o, nil
}

// showResult writes an answer in another form than text.
func showResult(c *cobra.Command, format string, m proto.Message, names ...string) error {
	if format != "name" {
		return showMessage(c.OutOrStdout(), format, m)
	}
	for _, n := range names {
		if _, err := fmt.Fprintln(c.OutOrStdout(), printable(n)); err != nil {
			return err
		}
	}
	return nil
}

// textOrJSON is -o of a command whose result is its own and no server's answer.
func textOrJSON(c *cobra.Command) {
	c.Flags().StringP("output", "o", "text", "text or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an undefined flag
}

func textOrJSONOf(c *cobra.Command) (string, error) {
	o, _ := c.Flags().GetString("output")
	if o != "text" && o != "json" {
		return "", usage(fmt.Errorf("-o %s: must be text or json", o))
	}
	return o, nil
}

// showJSON writes such a result.
func showJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// showLine writes one JSON document on one line: a watch is NDJSON.
func showLine(w io.Writer, m proto.Message) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(api.InWords(m))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

// printable keeps what others chose (paths, names) from moving the terminal's cursor.
func printable(s string) string { return plain.Line(s) }

var colorModes = []string{"auto", "always", "never"}

// colors reports whether w is a terminal that wants colour.
func colors(c *cobra.Command, w io.Writer) bool {
	switch mode, _ := c.Flags().GetString("color"); mode {
	case "always":
		return true
	case "never":
		return false
	}
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(w)
}

func paint(on bool, code, s string) string {
	if !on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)
