package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// table lays rows out in columns. It may be printed more than once: the header
// comes once, and columns only grow, so that a watch stays readable.
type table struct {
	titles []string
	from   []int // the column of a row that each column shows
	width  []int
	header bool // still to be printed
}

// tableOf chooses the columns: those of --columns, else the view's, and with
// -o wide its wide ones, too.
func tableOf(c *cobra.Command, v view) (*table, error) {
	all := append(append([]string{}, v.header...), v.wide...)
	noHeaders, _ := c.Flags().GetBool("no-headers")
	t := &table{header: !noHeaders}
	if names, _ := c.Flags().GetStringSlice("columns"); c.Flags().Changed("columns") {
		for _, name := range names {
			i, err := columnOf(all, name)
			if err != nil {
				return nil, err
			}
			t.from = append(t.from, i)
		}
	} else {
		n := len(v.header)
		if o, _ := c.Flags().GetString("output"); o == "wide" {
			n = len(all)
		}
		for i := range n {
			t.from = append(t.from, i)
		}
	}
	for _, i := range t.from {
		t.titles = append(t.titles, strings.ToUpper(all[i]))
		t.width = append(t.width, 0)
	}
	return t, nil
}

// columnOf finds a column by its title, in any case; dashes stand for spaces.
func columnOf(all []string, name string) (int, error) {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), " ", "-") }
	var known []string
	for i, title := range all {
		if plain(title) == plain(name) {
			return i, nil
		}
		known = append(known, plain(title))
	}
	return 0, usage(fmt.Errorf("--columns: there is no column %q; there are %s", name, strings.Join(known, ", ")))
}

func (t *table) print(w io.Writer, rows [][]string) error {
	var lines [][]string
	if t.header {
		lines = append(lines, t.titles)
		t.header = false
	}
	for _, r := range rows {
		line := make([]string, len(t.from))
		for i, from := range t.from {
			line[i] = printable(r[from])
			if line[i] == "" {
				line[i] = "-" // so that awk counts the same columns in every line
			}
		}
		lines = append(lines, line)
	}
	for _, line := range lines {
		for i, cell := range line {
			t.width[i] = max(t.width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", t.width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		if _, err := fmt.Fprintln(w, b.String()); err != nil {
			return err
		}
	}
	return nil
}
